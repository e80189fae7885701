"""How files lie in an archive, and the rows that this makes.

A layout has `fits(archive)` and `read(archive, limits, problems)`, which gives batches like a
parser. A column with a file's name holds the entry's full name in the archive.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import PurePosixPath
from typing import Any, cast

from ingest.archives import Archive
from ingest.limits import Limits
from ingest.parsers import Batches
from ingest.problems import Problems
from ingest.tasks.base import Modality, TaskFormat

IMAGES = frozenset(
    (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff",
     ".heic", ".heif", ".avif", ".svg", ".jp2", ".ico")
)  # fmt: skip
"""Endings, those of images that are not read among them: an entry is told of, not passed over."""
SOUNDS = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au",
     ".m4a", ".aac", ".wma", ".amr", ".webm", ".mp4")
)  # fmt: skip
MASK_FOLDERS = frozenset(("masks", "mask", "labels", "annotations", "segmentationclass"))
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test"))


def choose(archive: Archive, format: TaskFormat, problems: Problems) -> str:
    """The name of the layout that the archive has. Raises BadData where it has none."""
    _one_split(archive, problems)
    layout = of(archive, format)
    if layout is not None:
        return layout
    shown = ", ".join(list(archive.names)[:10]) or "nothing"
    raise problems.fatal(
        "unknown_layout",
        f"the archive is not laid out as {format.name} expects; it holds {shown}",
        f"Expected is {'; or '.join(format.formats)}.",
    )


def of(archive: Archive, format: TaskFormat) -> str | None:
    """The name of the first of the task's layouts that fits."""
    if modality(archive) not in (format.modality, None):
        return None
    fitting = (name for name in format.layouts if _module(name).fits(archive))
    return next(fitting, None)


def read(archive: Archive, layout: str, limits: Limits, problems: Problems) -> Batches:
    """The rows that the layout makes."""
    batches: Batches = _module(layout).read(archive, limits, problems)
    return batches


def _module(layout: str) -> Any:
    return import_module(f"{__name__}.{layout}")


def modality(archive: Archive) -> Modality | None:
    """What kind of media there is; None where there is none, or both kinds."""
    kinds = {
        "audio" if PurePosixPath(name).suffix.lower() in SOUNDS else "image"
        for name in media(archive)
    }
    return cast(Modality, kinds.pop()) if len(kinds) == 1 else None


def media(archive: Archive) -> list[str]:
    """The names of images and recordings, in order."""
    kinds = IMAGES | SOUNDS
    return sorted(name for name in archive.names if PurePosixPath(name).suffix.lower() in kinds)


def resolve(archive: Archive, name: str, beside: str) -> str:
    """The full name of an entry that a file in the archive names, as seen from that file.

    Tried are the folder of the naming file, its customary subfolders and the archive's root; then
    the one entry, if there are not several, whose last parts it is (`annotations/train.json` names
    `1.jpg`, which lies in `train/`), however case and accents are written. The name itself if there
    is none, which is found missing when it is loaded.
    """
    name = name.replace("\\", "/")
    folder = PurePosixPath(beside).parent
    for place in (folder, folder / "clips", folder / "images", folder / "wavs", PurePosixPath()):
        full = str(place / name)
        if full in archive.sizes:
            return full
    alike = [
        entry
        for entry in archive.alike(str(PurePosixPath(name)))
        if not in_mask_folder(entry) or in_mask_folder(name)
    ]
    return alike[0] if len(alike) == 1 else name


def in_mask_folder(name: str) -> bool:
    return any(part.lower() in MASK_FOLDERS for part in PurePosixPath(name).parts[:-1])


def _one_split(archive: Archive, problems: Problems) -> None:
    """A file is one split. Training on a test folder must not happen without a word."""
    folders = [
        {part.lower() for part in PurePosixPath(name).parts[:2]} & _SPLITS
        for name in media(archive)
    ]
    found = set().union(*folders)
    if len(found) > 1:
        raise problems.fatal(
            "several_splits",
            f"the archive holds the splits {', '.join(sorted(found))}",
            "Upload each as a file of its own, for training_file and validation_file.",
        )
