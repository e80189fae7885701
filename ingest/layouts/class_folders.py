"""Class folders: each file's label is the name of the folder that it lies in."""

from __future__ import annotations

from pathlib import PurePosixPath

from ingest.archives import Archive
from ingest.layouts import media
from ingest.limits import Limits
from ingest.parsers import Batch, Batches
from ingest.problems import Problems


def fits(archive: Archive) -> bool:
    files = media(archive)
    return bool(files) and all(len(PurePosixPath(name).parts) > 1 for name in files)


def read(archive: Archive, limits: Limits, problems: Problems) -> Batches:
    problems.unit = "entry"
    files = media(archive)
    step = limits.media_batch_rows
    for start in range(0, len(files), step):
        names = files[start : start + step]
        rows = [{"file_name": name, "label": PurePosixPath(name).parent.name} for name in names]
        yield Batch(list(range(start + 1, start + 1 + len(names))), rows, names)
