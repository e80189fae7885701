"""Images and their masks in two folders, paired by name: `images/a.jpg` with `masks/a.png`.

`classes.txt` (a name a line, from class 0) or `labels.json` ({"0": "sky"} or a list) may name the
classes; without them their numbers are their names.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import msgspec

from ingest.archives import Archive
from ingest.layouts import IMAGES
from ingest.limits import Limits
from ingest.parsers import Batch, Batches
from ingest.problems import BadValue, Problems

_MASKS = frozenset(("masks", "mask", "labels", "annotations", "segmentationclass"))
_ENDINGS = ("_mask", "-mask", "_label", "_labels")


def _is_mask(name: str) -> bool:
    return any(part.lower() in _MASKS for part in PurePosixPath(name).parts[:-1])


def fits(archive: Archive) -> bool:
    return any(_is_mask(name) and name.lower().endswith(".png") for name in archive.names)


def read(archive: Archive, limits: Limits, problems: Problems) -> Batches:
    names = _class_names(archive, problems)
    files = [name for name in sorted(archive.names) if PurePosixPath(name).suffix.lower() in IMAGES]
    masks = {_stem(name): name for name in files if _is_mask(name)}
    images = [name for name in files if not _is_mask(name)]
    problems.unit = "entry"
    for start in range(0, len(images), limits.media_batch_rows):
        part = images[start : start + limits.media_batch_rows]
        rows = [
            {"file_name": name, "mask_file_name": masks.get(_stem(name)), "classes": names}
            for name in part
        ]
        yield Batch(list(range(start + 1, start + 1 + len(part))), rows, part)


def _stem(name: str) -> str:
    stem = PurePosixPath(name).stem
    return next((stem.removesuffix(end) for end in _ENDINGS if stem.endswith(end)), stem)


def _class_names(archive: Archive, problems: Problems) -> dict[str, str]:
    """Class number, as text, to name."""
    for name in sorted(archive.names):
        path = PurePosixPath(name)
        try:
            if path.name == "classes.txt":
                lines = archive.read(name).decode().split("\n")
                return {
                    str(index): line.strip() for index, line in enumerate(lines) if line.strip()
                }
            if path.name in ("labels.json", "classes.json"):
                return _from_json(msgspec.json.decode(archive.read(name)))
        except BadValue as bad:
            raise problems.fatal(bad.code, bad.message, bad.hint, entry=name) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise problems.fatal(
                "invalid_json", f"the class names cannot be read ({error})", entry=name
            ) from None
    return {}


def _from_json(value: Any) -> dict[str, str]:
    if isinstance(value, list):
        value = {str(index): name for index, name in enumerate(value)}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise BadValue("missing_class_names", 'not a list of names, nor {"0": "name"}')
    return value
