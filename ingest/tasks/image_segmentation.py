"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa

from ingest import kinds
from ingest.problems import BadValue
from ingest.tasks.base import ID, IMAGE, Column, Row, Shape, TaskFormat

MAX_CLASSES = 255
"""255 stays free for pixels without a class."""

IMAGE_NAME = Column(
    "file_name",
    "The image's name in the archive, or its bytes.",
    kinds.anything,
    aliases=("image", "filename", "file", "path"),
    loads="image",
)


def _from_mask(row: Row) -> Row:
    classes = row.pop("classes", None) or {}
    size = row.pop("mask_size")
    if size != (row["width"], row["height"]):
        raise BadValue(
            "size_mismatch",
            f"the mask is {size[0]} x {size[1]}, the image {row['width']} x {row['height']}",
            "A mask has its image's size.",
            column="mask_file_name",
        )
    ids = row["mask_ids"]
    missing = [number for number in ids if classes and number != 255 and str(number) not in classes]
    if missing:
        raise BadValue(
            "unknown_class",
            f"the mask holds the value {missing[0]}, which no class has",
            "Name it in classes.txt or labels.json; 255 is no class.",
            column="mask_file_name",
        )
    used = [number for number in ids if number != 255]
    names = [classes.get(str(number), str(number)) for number in used]
    return row | {"mask_ids": used, "mask_labels": names}


def _from_segments(row: Row) -> Row:
    """Draw COCO's segments, in order, on a mask where 0 is `background`."""
    from PIL import Image, ImageDraw

    width, height = row["width"], row["height"]
    mask = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    names = ["background"]
    for number, item in enumerate(row.pop("segments"), start=1):
        try:
            segment = kinds.mapping(item)
            name = kinds.label(segment.get("category"))
            if name not in names:
                names.append(name)
            if len(names) > MAX_CLASSES:
                raise BadValue("too_many_classes", f"more than {MAX_CLASSES} in one image")
            value = names.index(name)
            shape = segment.get("segmentation")
            if isinstance(shape, dict):
                mask.paste(value, mask=_run_lengths(shape, width, height))
            else:
                for polygon in kinds.items(shape):
                    draw.polygon(_polygon(polygon), fill=value)
        except BadValue as bad:
            message = f"segment {number}: {bad.message}"
            raise BadValue(bad.code, message, bad.hint, column="segments") from None
    used = [value for _, value in mask.getcolors(256) or []]
    packed = io.BytesIO()
    mask.save(packed, "PNG")
    return row | {
        "mask": packed.getvalue(),
        "mask_ids": sorted(int(str(value)) for value in used),
        "mask_labels": [names[int(str(value))] for value in sorted(used)],
    }


def _polygon(points: Any) -> list[tuple[float, float]]:
    values = [kinds.number(value) for value in kinds.items(points)]
    if len(values) < 6 or len(values) % 2:
        raise BadValue("invalid_polygon", "a polygon has at least three points: [x, y, x, y, …]")
    return list(zip(values[::2], values[1::2], strict=True))


def _run_lengths(value: dict[str, Any], width: int, height: int) -> Any:
    """COCO's run lengths, column by column, beginning with pixels outside."""
    import numpy as np
    from PIL import Image

    counts = value.get("counts")
    if isinstance(counts, str):
        counts = _unpacked(counts)
    if value.get("size") != [height, width]:
        raise BadValue("size_mismatch", "the run lengths are not of the image's [height, width]")
    runs = [kinds.integer(count) for count in kinds.items(counts)]
    if min(runs, default=0) < 0 or sum(runs) != width * height:
        raise BadValue("invalid_run_lengths", "the runs do not add up to the image's pixels")
    inside = np.repeat(np.arange(len(runs)) % 2, runs).astype(bool)
    return Image.fromarray(inside.reshape(width, height).T)


def _unpacked(text: str) -> list[int]:
    """Compressed counts: five bits a character from 48 on, the sixth says that more follow, and
    from the third count on the difference to the count before the last (cocoapi's maskApi.c)."""
    counts: list[int] = []
    at = 0
    while at < len(text):
        value = shift = 0
        more = True
        while more:
            if at == len(text) or not 0 <= (bits := ord(text[at]) - 48) < 64:
                raise BadValue("invalid_run_lengths", "the compressed counts are broken")
            value |= (bits & 0x1F) << shift
            more = bool(bits & 0x20)
            at += 1
            shift += 5
            if not more and bits & 0x10:
                value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


FORMAT = TaskFormat(
    name="image-segmentation",
    title="Semantic segmentation",
    description="Gives each pixel of an image a class.",
    modality="image",
    schema=pa.schema(
        [
            ID,
            *IMAGE,
            pa.field("mask", pa.binary(), nullable=False),
            pa.field("mask_ids", pa.list_(pa.int32()), nullable=False),
            pa.field("mask_labels", pa.list_(pa.string()), nullable=False),
        ]
    ),
    shapes=(
        Shape(
            "file_name,mask_file_name",
            (
                IMAGE_NAME,
                Column(
                    "mask_file_name",
                    "The mask's name in the archive, or its bytes: one channel, a value a class.",
                    kinds.anything,
                    aliases=("mask", "label", "annotation"),
                    loads="mask",
                ),
                Column("classes", "Class names by value.", kinds.mapping, required=False),
            ),
            _from_mask,
            labels=lambda row: row["mask_labels"],
            min_labels=2,
        ),
        Shape(
            "file_name,segments",
            (
                IMAGE_NAME,
                Column(
                    "segments",
                    "A list of {category, segmentation}: polygons or run lengths as in COCO.",
                    kinds.items,
                ),
            ),
            _from_segments,
            labels=lambda row: row["mask_labels"],
            min_labels=2,
        ),
    ),
    formats=(
        "a zip or tar of `images/` and `masks/`, indexed PNGs of the same names, "
        "with classes.txt or labels.json if the classes have names",
        "a zip or tar with `metadata.csv`: `file_name,mask_file_name`",
        "a zip or tar of images with COCO's JSON (polygons or run lengths)",
        "Parquet with the columns `image,mask`",
    ),
    metrics=("loss", "mean_iou", "pixel_accuracy"),
    inputs=("image",),
    outputs=("mask",),
    example=({"file_name": "images/1.png", "mask_file_name": "masks/1.png"},),
    layouts=("metadata", "masks", "coco"),
)
