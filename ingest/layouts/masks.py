"""Images and their masks in two folders, paired by name: `images/a.jpg` with `masks/a.png`.

`classes.txt` (a name a line, from class 0) or `labels.json` ({"0": "sky"} or a list) may name the
classes; without them their numbers are their names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import msgspec

from ingest.archives import Archive
from ingest.layouts import IMAGES, MASK_FOLDERS, in_mask_folder
from ingest.limits import Limits
from ingest.parsers import Batch, Batches
from ingest.problems import BadValue, Problems

_IMAGE_FOLDERS = frozenset(("images", "image", "imgs", "img", "jpegimages"))
_ENDINGS = ("_mask", "-mask", "_label", "_labels")


def fits(archive: Archive) -> bool:
    return any(in_mask_folder(name) and name.lower().endswith(".png") for name in archive.names)


def read(archive: Archive, limits: Limits, problems: Problems) -> Batches:
    names = _class_names(archive, problems)
    files = [name for name in sorted(archive.names) if PurePosixPath(name).suffix.lower() in IMAGES]
    masks = _Masks(name for name in files if in_mask_folder(name))
    images = [name for name in files if not in_mask_folder(name)]
    problems.unit = "entry"
    for start in range(0, len(images), limits.media_batch_rows):
        part = images[start : start + limits.media_batch_rows]
        rows = [
            {"file_name": name, "mask_file_name": masks.of(name), "classes": names} for name in part
        ]
        yield Batch(list(range(start + 1, start + 1 + len(part))), rows, part)


class _Masks:
    """Masks by place and name, since images of several folders may be called alike."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_place: dict[tuple[str, ...], list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in names:
            self._by_place.setdefault(_place(name), []).append(name)
            self._by_stem.setdefault(_stem(name), []).append(name)

    def of(self, image: str) -> str:
        """The mask in the folder beside the image's, or else the only one of its name.

        Where there is none, or which one is open, a name that no entry has.
        """
        found = self._by_place.get(_place(image)) or self._by_stem.get(_stem(image), [])
        return found[0] if len(found) == 1 else f"masks/{_stem(image)}.png"


def _place(name: str) -> tuple[str, ...]:
    """The name's parts, less the folder that says whether it is an image or a mask."""
    folders = PurePosixPath(name).parts[:-1]
    kinds = MASK_FOLDERS | _IMAGE_FOLDERS
    return (*(part for part in folders if part.lower() not in kinds), _stem(name))


def _stem(name: str) -> str:
    stem = PurePosixPath(name).stem
    return next((stem.removesuffix(end) for end in _ENDINGS if stem.endswith(end)), stem)


def _class_names(archive: Archive, problems: Problems) -> dict[str, str]:
    """Class number, as text, to name."""
    for name in sorted(archive.names):
        path = PurePosixPath(name)
        try:
            if path.name == "classes.txt":
                lines = archive.read(name).decode("utf-8-sig").split("\n")
                return {
                    str(index): line.strip() for index, line in enumerate(lines) if line.strip()
                }
            if path.name in ("labels.json", "classes.json"):
                return _from_json(msgspec.json.decode(archive.read(name).decode("utf-8-sig")))
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
