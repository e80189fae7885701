"""YOLO: `images/NAME.jpg` with `labels/NAME.txt`, and class names in `data.yaml` or `classes.txt`.

A label line is `class cx cy width height`, fractions of the image's size
(https://docs.ultralytics.com/datasets/detect/). An image without a label file has no objects.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import yaml

from ingest.archives import Archive
from ingest.layouts import IMAGES
from ingest.limits import Limits
from ingest.parsers import Batch, Batches
from ingest.problems import BadValue, Problems

_FIELDS = 5


def fits(archive: Archive) -> bool:
    return any(
        PurePosixPath(name).suffix == ".txt" and "labels" in PurePosixPath(name).parts[:-1]
        for name in archive.names
    )


def read(archive: Archive, limits: Limits, problems: Problems) -> Batches:
    names = _class_names(archive, problems)
    problems.unit = "entry"
    images = sorted(name for name in archive.names if PurePosixPath(name).suffix.lower() in IMAGES)
    for start in range(0, len(images), limits.media_batch_rows):
        entries: list[str] = []
        batch = Batch(entries=entries)
        for place, image in enumerate(images[start : start + limits.media_batch_rows], start + 1):
            labels = _label_file(image)
            try:
                objects = _objects(archive, labels, names) if labels in archive.sizes else {}
            except BadValue as bad:
                problems.add(bad.code, bad.message, bad.hint, place=place, entry=labels)
                continue
            batch.places.append(place)
            batch.rows.append({"file_name": image, "objects": objects})
            entries.append(image)
        yield batch


def _label_file(image: str) -> str:
    """The last folder `images` becomes `labels`; the suffix `.txt`."""
    path = PurePosixPath(image).with_suffix(".txt")
    parts = list(path.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            return str(PurePosixPath(*parts))
    return str(path)


def _objects(archive: Archive, name: str, names: dict[int, str]) -> dict[str, Any]:
    boxes, categories = [], []
    for number, line in enumerate(_text(archive, name).splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            kind = int(fields[0])
            box = [float(field) for field in fields[1:]]
        except ValueError:
            kind, box = -1, []
        if len(fields) != _FIELDS or not box:
            raise BadValue(
                "invalid_annotation",
                f"line {number} is not `class cx cy width height`",
                "Polygons and poses are not boxes." if len(fields) > _FIELDS else "",
            )
        if kind not in names:
            raise BadValue("invalid_annotation", f"line {number}: no name for class {kind}")
        boxes.append(box)
        categories.append(names[kind])
    return {"yolo": boxes, "category": categories}


def _class_names(archive: Archive, problems: Problems) -> dict[int, str]:
    for name in sorted(archive.names):
        path = PurePosixPath(name)
        try:
            if path.name in ("classes.txt", "obj.names"):
                lines = _text(archive, name).split("\n")
                return {index: line.strip() for index, line in enumerate(lines) if line.strip()}
            if path.suffix in (".yaml", ".yml"):
                return _from_yaml(yaml.safe_load(_text(archive, name)))
        except BadValue as bad:
            raise problems.fatal(bad.code, bad.message, bad.hint, entry=name) from None
        except (yaml.YAMLError, RecursionError):
            raise problems.fatal("invalid_annotation", "not valid YAML", entry=name) from None
    raise problems.fatal(
        "missing_class_names",
        "no data.yaml and no classes.txt",
        "One of them names the classes whose numbers the label files hold.",
    )


def _from_yaml(value: Any) -> dict[int, str]:
    names = value.get("names") if isinstance(value, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        raise BadValue("missing_class_names", "`names` is not a list of class names")
    named: dict[int, str] = {}
    for key, name in names.items():
        if not str(key).isdecimal() or not isinstance(name, str | int) or isinstance(name, bool):
            raise BadValue(
                "missing_class_names",
                "`names` does not give each class number a name",
                "Put names that YAML takes for something else, such as no, between quotes.",
            )
        named[int(key)] = str(name)
    return named


def _text(archive: Archive, name: str) -> str:
    if archive.sizes[name] > 1024**2:
        raise BadValue("entry_too_large", "a label file of more than 1 MiB")
    try:
        return archive.read(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadValue("invalid_encoding", "not UTF-8", "Save the file as UTF-8.") from None
