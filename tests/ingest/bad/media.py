"""Images, masks, boxes and recordings that no trainer could use."""

from __future__ import annotations

from typing import Any

from ingest.limits import Limits
from tests.ingest import make
from tests.ingest.bad import Bad

PNG, JPEG, WAV = make.image(), make.image(64, 64, format="JPEG"), make.sound()
IMAGES, BOXES, MASKS = "image-classification", "object-detection", "image-segmentation"
SPEECH, SOUNDS = "automatic-speech-recognition", "audio-classification"


def folder(
    name: str, content: bytes, code: str, says: str, file: str = "b/bad.png", **options: Any
) -> Bad:
    """A bad image among good ones, in class folders."""
    files = {"a/1.png": PNG, "b/1.png": PNG, file: content}
    return Bad(name, make.zipped(files), code, file, says, task=IMAGES, **options)


def coco(name: str, code: str, at: str | None, says: str, task: str = BOXES, **changes: Any) -> Bad:
    files = {"coco.json": make.coco(**changes), "a.png": PNG}
    return Bad(name, make.zipped(files), code, at, says, task=task)


def box(name: str, value: Any, code: str, says: str) -> Bad:
    annotation = {"image_id": 7, "category_id": 3, "bbox": value}
    return coco(name, code, "a.png", says, annotations=[annotation])


def segment(name: str, value: Any, code: str, says: str) -> Bad:
    annotation = {"image_id": 7, "category_id": 3, "segmentation": value}
    return coco(name, code, "a.png", says, MASKS, annotations=[annotation])


def yolo(name: str, label: str, code: str, at: str | None, says: str, **files: str) -> Bad:
    named = files or {"classes.txt": "valve\n"}
    content = make.zipped({"images/a.png": PNG, "labels/a.txt": label, **named})
    return Bad(name, content, code, at, says, task=BOXES)


def masks(
    name: str, files: dict[str, bytes | str], code: str, says: str, at: str | None = "images/a.png"
) -> Bad:
    content = make.zipped({"images/a.png": PNG, **files})
    return Bad(name, content, code, at, says, task=MASKS)


def speech(name: str, content: bytes, code: str, says: str, **options: Any) -> Bad:
    files = {"metadata.csv": "file_name,transcription\n1.wav,yes\n", "1.wav": content}
    return Bad(name, make.zipped(files), code, "metadata.csv", says, task=SPEECH, **options)


ROW = make.lines({"file_name": "1.png", "label": "a"})
TABLE = "file_name,label\n1.png,a\n2.png,b\n"

CASES = [
    folder("not an image", b"hello", "unreadable_image", "not an image"),
    folder("an empty image", b"", "unreadable_image", "not an image"),
    folder("an SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unreadable_image", "Read are"),
    folder("an image of 32 bits", make.floats(), "unreadable_image", "32 bits"),
    folder("an image of a kind that is not read", b"\x00\x00\x00\x18ftypheic", "unreadable_image",
           "not an image of a kind", file="b/bad.heic"),
    folder("a PNG cut off", PNG[:50], "unreadable_image", "image"),
    folder("a JPEG cut off", JPEG[: len(JPEG) // 2], "unreadable_image", "cannot be decoded"),
    folder("a long PNG cut off", make.noise("PNG")[:-9000], "unreadable_image",
           "cannot be decoded"),
    folder("a long JPEG cut off", make.noise("JPEG")[:-9000], "unreadable_image",
           "cannot be decoded"),
    Bad("a tar of images cut off",
        make.tarred({"a/1.png": PNG, "b/1.png": make.noise("PNG")})[:-20_000],
        "invalid_archive", None, "cannot be read", task=IMAGES),
    folder("a PNG with a broken chunk", PNG[:40] + b"\xff" * 8 + PNG[48:], "unreadable_image",
           "image"),
    folder("a huge PNG by header", make.huge_png(12_000, 12_000), "image_too_large",
           "12,000 x 12,000"),
    folder("the largest PNG by header", make.huge_png(2**31 - 1, 2**31 - 1), "image_too_large",
           "pixels"),
    folder("a PNG with a side of none", make.huge_png(0, 10), "unreadable_image", "image"),
    folder("a large file", bytes(5000), "entry_too_large", "5,000 bytes",
           limits=Limits(max_entry_bytes=4000)),
    Bad("one folder", make.zipped({"a/1.png": PNG, "a/2.png": PNG}), "one_class", None, "`a`",
        task=IMAGES),
    Bad("no folders", make.zipped({"1.png": PNG, "2.png": PNG}), "unknown_layout", None,
        "it holds 1.png, 2.png", task=IMAGES),
    Bad("no images", make.zipped({"a/readme.txt": "x"}), "unknown_layout", None, "a/readme.txt",
        task=IMAGES),
    Bad("an empty archive of images", make.zipped({}), "unknown_layout", None, "nothing",
        task=IMAGES),
    Bad("train and test", make.zipped({"train/a/1.png": PNG, "test/b/1.png": PNG}),
        "several_splits", None, "test, train", task=IMAGES),
    Bad("a file that is not there", make.zipped({"metadata.csv": TABLE, "1.png": PNG}),
        "missing_file", "metadata.csv", "no `2.png`", task=IMAGES),
    Bad("a file outside", make.zipped({"metadata.csv": "file_name,label\n../1.png,a\n/etc/x,b\n",
                                       "1.png": PNG}),
        "missing_file", "metadata.csv", "no `../1.png`", task=IMAGES),
    Bad("two tables", make.zipped({"train.csv": TABLE, "test.csv": TABLE, "1.png": PNG}),
        "several_tables", None, "2 tables", task=IMAGES),
    Bad("a table of other columns", make.zipped({"metadata.csv": "a,b\n1,2\n", "1.png": PNG}),
        "missing_columns", None, "found `a`, `b`", task=IMAGES),
    Bad("a table that is an image", make.zipped({"metadata.csv": PNG, "1.png": PNG}),
        "unsupported_format", "metadata.csv", "PNG", task=IMAGES),
    Bad("a broken table", make.zipped({"metadata.jsonl": ROW + b'{"file', "1.png": PNG}),
        "invalid_json", 2, "not valid JSON", task=IMAGES),
    Bad("names without an archive", make.parquet([{"file_name": "1.png", "label": "a"}]),
        "missing_file", 1, "into one zip", task=IMAGES),
    Bad("base64 in Parquet", make.parquet([{"image": "iVBORw0KGgo" * 999, "label": "a"}]),
        "missing_file", 1, "not in base64", task=IMAGES),
    Bad("paths in Parquet",
        make.parquet([{"image": {"bytes": None, "path": "1.png"}, "label": "a"}]), "missing_file",
        1, "only the file's path", task=IMAGES),
    Bad("an image elsewhere", make.zipped({"metadata.csv": "file_name,label\n/home/1.png,a\n",
                                           "1.png": PNG}),
        "missing_file", "metadata.csv", "There is `1.png`", task=IMAGES),
    Bad("no archive of images", b"file_name,label\n1.png,a\n", "unsupported_format", None,
        "this is a csv file, which", task=IMAGES),
    Bad("no bytes of images", b"", "empty_file", None, "the file is empty", task=IMAGES),
    Bad("numbers as images", make.parquet([{"image": 5, "label": "a"}]), "wrong_type", 1,
        "file name expected", task=IMAGES),
    box("a box outside", [5, 5, 20, 2], "box_outside", "leaves the image of 12 x 10"),
    box("a box before the image", [-5, 0, 6, 2], "box_outside", "[-5, 0, 6, 2]"),
    box("a box without area", [1, 1, 0, 5], "invalid_box", "0 by 5"),
    box("a box of two numbers", [1, 1], "invalid_box", "[x, y, width, height]"),
    box("no box", None, "invalid_box", "box 1"),
    coco("not COCO", "invalid_coco", "coco.json", "Object missing required field", categories=[{}]),
    coco("two images of one id", "invalid_coco", "coco.json", "two images have the id 7",
         images=[{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "b.png"}]),
    coco("two categories of one id", "invalid_coco", "coco.json", "two categories have the id 3",
         categories=[{"id": 3, "name": "valve"}, {"id": 3, "name": "pump"}]),
    coco("an annotation of no image", "invalid_annotation", "coco.json", "annotations[0]",
         annotations=[{"image_id": 99, "category_id": 3}]),
    coco("an annotation of no category", "invalid_annotation", "coco.json", "a category",
         annotations=[{"image_id": 7, "category_id": 99}]),
    coco("an image that is not there", "missing_file", "b.png", "no `b.png`",
         images=[{"id": 7, "file_name": "b.png"}]),
    Bad("broken COCO", make.zipped({"coco.json": make.coco()[:-5], "a.png": PNG}), "invalid_coco",
        "coco.json", "not COCO", task=BOXES),
    Bad("two COCO files", make.zipped({"a.json": make.coco(), "b.json": make.coco()}),
        "several_tables", None, "2 JSON files", task=BOXES),
    Bad("too large a COCO file", make.zipped({"coco.json": make.coco(), "a.png": PNG}),
        "entry_too_large", "coco.json", "Split", task=BOXES, limits=Limits(max_document_bytes=50)),
    Bad("no boxes at all", make.zipped({"coco.json": make.coco(annotations=[]), "a.png": PNG}),
        "one_class", None, "no row has a label", task=BOXES),
    yolo("a YOLO line cut", "0 0.5 0.5\n", "invalid_annotation", "labels/a.txt", "line 1"),
    yolo("a YOLO polygon", "0 0.1 0.1 0.2 0.2 0.3 0.3\n", "invalid_annotation", "labels/a.txt",
         "Polygons"),
    yolo("a YOLO class without name", "4 0.5 0.5 0.1 0.1\n", "invalid_annotation", "labels/a.txt",
         "class 4"),
    yolo("a YOLO word", "valve 0.5 0.5 0.1 0.1\n", "invalid_annotation", "labels/a.txt", "line 1"),
    yolo("YOLO pixels", "0 50 50 10 10\n", "box_outside", "images/a.png", "leaves the image"),
    yolo("YOLO without names", "0 0.5 0.5 0.1 0.1\n", "missing_class_names", None, "data.yaml",
         **{"notes.md": "x"}),
    yolo("YOLO with broken YAML", "0 0.5 0.5 0.1 0.1\n", "invalid_annotation", "data.yaml", "YAML",
         **{"data.yaml": "names: [a\n"}),
    yolo("YOLO with a class called no", "0 0.5 0.5 0.1 0.1\n", "missing_class_names", "data.yaml",
         "between quotes", **{"data.yaml": "names: [no]\n"}),
    yolo("YOLO with a program in YAML", "0 0.5 0.5 0.1 0.1\n", "invalid_annotation", "data.yaml",
         "YAML", **{"data.yaml": "names: !!python/object/apply:os.system ['true']\n"}),
    segment("a polygon of two points", [[1, 1, 2, 2]], "invalid_polygon", "three points"),
    segment("a polygon in words", [["a", "b"] * 3], "wrong_type", "a number expected"),
    segment("no segmentation", None, "wrong_type", "segment 1"),
    segment("run lengths too short", {"size": [10, 12], "counts": [5]}, "invalid_run_lengths",
            "add up"),
    segment("run lengths of another size", {"size": [5, 5], "counts": [25]}, "size_mismatch",
            "[height, width]"),
    segment("broken compressed run lengths", {"size": [10, 12], "counts": "\x7f"},
            "invalid_run_lengths", "broken"),
    masks("no mask", {"masks/b.png": make.mask()}, "missing_file", "no `masks/a.png`"),
    masks("a binary mask of 0 and 255", {"masks/a.png": make.mask(values=(0, 255))}, "one_class",
          "255 is no class", at=None),
    masks("a mask of another size", {"masks/a.png": make.mask(5, 5)}, "size_mismatch", "5 x 5"),
    masks("a mask in colours", {"masks/a.png": PNG}, "invalid_mask", "mode RGB"),
    masks("a mask with a class too many", {"masks/a.png": make.mask(values=(0, 9)),
                                           "classes.txt": "sky\nroad\n"}, "unknown_class", "9"),
    Bad("class names that are numbers",
        make.zipped({"images/a.png": PNG, "masks/a.png": make.mask(), "labels.json": "[1]"}),
        "missing_class_names", "labels.json", "list of names", task=MASKS),
    speech("not a recording", b"hello", "unreadable_audio", "WAV, FLAC"),
    speech("an empty recording", make.sound(0), "empty_audio", "no samples"),
    speech("a WAV cut off", WAV[:-99], "unreadable_audio", "cut off"),
    speech("a recording of no numbers", make.floating(float("nan")), "not_finite", "no number"),
    speech("a recording without bounds", make.floating(float("inf")), "not_finite", "infinite"),
    speech("a WAV without its data", WAV[:20], "unreadable_audio", "decoded"),
    speech("a long recording", make.sound(2.0), "audio_too_long", "at most 1",
           limits=Limits(max_seconds=1.0)),
    Bad("no transcription", make.zipped({"metadata.csv": "file_name,transcription\n1.wav,\n",
                                         "1.wav": WAV}),
        "empty_text", "metadata.csv", "line 2", task=SPEECH),
    Bad("recordings without a table", make.zipped({"1.wav": WAV}), "unknown_layout", None, "1.wav",
        task=SPEECH),
    Bad("one kind of sounds", make.zipped({"a/1.wav": WAV}), "one_class", None, "`a`", task=SOUNDS),
    Bad("an image among sounds", make.zipped({"a/1.wav": WAV, "b/1.png": PNG}), "unreadable_audio",
        "b/1.png", "decoded", task=SOUNDS),
]  # fmt: skip
