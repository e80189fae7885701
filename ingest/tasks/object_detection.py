"""Object detection: boxes with a category each."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ingest import kinds
from ingest.problems import BadValue
from ingest.tasks.base import ID, IMAGE, Column, Row, Shape, TaskFormat

TOLERANCE = 1.0
"""Pixels by which a box may stand over, from rounding; it is cut to the image."""


def _build(row: Row) -> Row:
    boxes, categories, crowd = _listed(row.pop("objects"), row["width"], row["height"])
    checked = []
    for number, box in enumerate(boxes, start=1):
        try:
            checked.append(_box(box, row["width"], row["height"]))
        except BadValue as bad:
            raise BadValue(bad.code, f"box {number}: {bad.message}", bad.hint, "objects") from None
    return row | {"boxes": checked, "categories": categories, "crowd": crowd}


def _listed(objects: Any, width: int, height: int) -> tuple[list[Any], list[str], list[bool]]:
    """Boxes, categories and crowd flags from either way of listing objects."""
    if isinstance(objects, list):
        rows = [kinds.mapping(item) for item in objects]
        objects = {
            "bbox": [row.get("bbox") for row in rows],
            "category": [row.get("category", row.get("label")) for row in rows],
            "iscrowd": [bool(row.get("iscrowd", False)) for row in rows],
        }
    objects = kinds.mapping(objects)
    boxes = kinds.items(objects.get("bbox", objects.get("boxes", [])))
    if "yolo" in objects:
        boxes = [_from_yolo(box, width, height) for box in objects["yolo"]]
    names: Any = next((objects[k] for k in ("category", "categories", "label") if k in objects), [])
    categories = [kinds.label(name) for name in kinds.items(names)]
    crowd = [bool(flag) for flag in objects.get("iscrowd") or [False] * len(boxes)]
    if not len(boxes) == len(categories) == len(crowd):
        raise BadValue(
            "length_mismatch", f"{len(boxes)} boxes but {len(categories)} categories", "", "objects"
        )
    return boxes, categories, crowd


def _from_yolo(box: list[float], width: int, height: int) -> list[float]:
    """From the centre and size as fractions to the corner and size in pixels."""
    x, y, w, h = box
    return [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]


def _box(box: Any, width: int, height: int) -> list[float]:
    if not isinstance(box, list) or len(box) != 4:
        raise BadValue("invalid_box", "not [x, y, width, height]", "In pixels.")
    x, y, w, h = map(kinds.number, box)
    if w <= 0 or h <= 0:
        raise BadValue("invalid_box", f"it is {w:g} by {h:g} pixels", "Boxes have an area.")
    right, bottom = x + w, y + h
    if min(x, y) < -TOLERANCE or right > width + TOLERANCE or bottom > height + TOLERANCE:
        raise BadValue(
            "box_outside",
            f"[{x:g}, {y:g}, {w:g}, {h:g}] leaves the image of {width} x {height}",
            "Boxes are [x, y, width, height] in pixels, not two corners.",
        )
    x, y = max(x, 0.0), max(y, 0.0)
    return [x, y, min(right, float(width)) - x, min(bottom, float(height)) - y]


FORMAT = TaskFormat(
    name="object-detection",
    title="Object detection",
    description="Finds objects in images, each with a box and a category.",
    modality="image",
    schema=pa.schema(
        [
            ID,
            *IMAGE,
            pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4)), nullable=False),
            pa.field("categories", pa.list_(pa.string()), nullable=False),
            pa.field("crowd", pa.list_(pa.bool_()), nullable=False),
        ]
    ),
    shapes=(
        Shape(
            "file_name,objects",
            (
                Column(
                    "file_name",
                    "The image's name in the archive, or its bytes.",
                    kinds.anything,
                    aliases=("image", "filename", "file", "path"),
                    loads="image",
                ),
                Column(
                    "objects",
                    "{bbox: [[x, y, width, height], …], category: […]}, in pixels.",
                    kinds.anything,
                    aliases=("annotations",),
                ),
            ),
            _build,
            labels=lambda row: row["categories"],
            min_labels=1,
        ),
    ),
    formats=(
        "a zip or tar of images with COCO's JSON",
        "a zip or tar with `metadata.jsonl`: "
        '{"file_name": "…", "objects": {"bbox": [[x, y, w, h]], "category": ["…"]}}',
        "YOLO: `images/`, `labels/` and data.yaml or classes.txt, in a zip or tar",
        "Parquet with the columns `image,objects`",
    ),
    metrics=("loss", "map", "map_50"),
    inputs=("image",),
    outputs=("boxes", "categories"),
    example=({"file_name": "1.png", "objects": {"bbox": [[4, 4, 20, 10]], "category": ["valve"]}},),
    layouts=("metadata", "coco", "yolo"),
)
