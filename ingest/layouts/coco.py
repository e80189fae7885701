"""COCO: one JSON file with `images`, `annotations` and `categories`, beside the images.

The JSON is held in memory as a whole, since annotations refer to images in any order. Boxes are
[x, y, width, height] in pixels; a segmentation is a list of polygons or a run-length encoding
(https://cocodataset.org/#format-data).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import msgspec

from ingest.archives import Archive
from ingest.layouts import resolve
from ingest.limits import Limits
from ingest.parsers import Batch, Batches
from ingest.problems import BadValue, Problems


class _Image(msgspec.Struct):
    id: int | str
    file_name: str


class _Annotation(msgspec.Struct):
    image_id: int | str
    category_id: int
    bbox: list[float] | None = None
    segmentation: Any = None
    iscrowd: bool | int = 0


class _Category(msgspec.Struct):
    id: int
    name: str


class _Document(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def fits(archive: Archive) -> bool:
    return bool(_documents(archive))


def _documents(archive: Archive) -> list[str]:
    return sorted(name for name in archive.names if PurePosixPath(name).suffix.lower() == ".json")


def read(archive: Archive, limits: Limits, problems: Problems) -> Batches:
    names = _documents(archive)
    if len(names) > 1:
        raise problems.fatal(
            "several_tables",
            f"the archive has {len(names)} JSON files: {', '.join(names[:10])}",
            "Keep the one with the annotations.",
        )
    (name,) = names
    document = _decode(archive, name, limits, problems)
    for what, listed in (("images", document.images), ("categories", document.categories)):
        twice = _repeated(item.id for item in listed)
        if twice is not None:
            raise problems.fatal(
                "invalid_coco",
                f"two {what} have the id {twice}",
                "Annotations refer to ids: give each its own.",
                entry=name,
            )
    categories = {category.id: category.name for category in document.categories}
    by_image: dict[int | str, list[_Annotation]] = {image.id: [] for image in document.images}
    for index, annotation in enumerate(document.annotations):
        known = annotation.image_id in by_image and annotation.category_id in categories
        if not known:
            what = "a category" if annotation.image_id in by_image else "an image"
            problems.add(
                "invalid_annotation",
                f"annotations[{index}] refers to {what} that is not there",
                entry=name,
            )
            continue
        by_image[annotation.image_id].append(annotation)
    problems.unit = "entry"
    for start in range(0, len(document.images), limits.media_batch_rows):
        entries: list[str] = []
        batch = Batch(entries=entries)
        for place, image in enumerate(
            document.images[start : start + limits.media_batch_rows], start + 1
        ):
            found = by_image[image.id]
            full = resolve(archive, image.file_name, name)
            batch.places.append(place)
            batch.rows.append(
                {
                    "file_name": full,
                    "objects": {
                        "bbox": [item.bbox for item in found],
                        "category": [categories[item.category_id] for item in found],
                        "iscrowd": [bool(item.iscrowd) for item in found],
                    },
                    "segments": [
                        {
                            "category": categories[item.category_id],
                            "segmentation": item.segmentation,
                        }
                        for item in found
                    ],
                }
            )
            entries.append(full)
        yield batch


def _repeated(ids: Iterable[int | str]) -> int | str | None:
    return next((id for id, times in Counter(ids).items() if times > 1), None)


def _decode(archive: Archive, name: str, limits: Limits, problems: Problems) -> _Document:
    size = archive.sizes[name]
    if size > limits.max_document_bytes:
        raise problems.fatal(
            "entry_too_large",
            f"the JSON has {size:,} bytes, and at most {limits.max_document_bytes:,} are read",
            "Split the dataset, or write metadata.jsonl.",
            entry=name,
        )
    try:
        return msgspec.json.decode(archive.read(name), type=_Document)
    except BadValue as bad:
        raise problems.fatal(bad.code, bad.message, bad.hint, entry=name) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise problems.fatal(
            "invalid_coco",
            f"not COCO's JSON ({error})",
            "It has the lists images, annotations and categories.",
            entry=name,
        ) from None
