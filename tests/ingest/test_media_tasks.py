"""Archives of images and recordings, in every layout, become rows that hold the files' bytes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.ingest import make
from tests.ingest.reading import ingest, refused

CAT, DOG = make.image(12, 10, colour=10), make.image(20, 8, colour=200)
YES, NO = make.sound(0.5), make.sound(0.25, rate=16000)
FOLDERS = {"pets/cat/1.png": CAT, "pets/dog/1.png": DOG, "__MACOSX/x": b"", "pets/.DS_Store": b""}


@pytest.mark.parametrize(
    "content",
    [
        make.zipped(FOLDERS),
        make.tarred(FOLDERS),
        make.tarred(FOLDERS, "w:gz"),
        make.zstd(make.tarred(FOLDERS)),
        make.zipped({"metadata.csv": "file_name,label\n1.png,cat\nb/2.png,dog\n",
                     "1.png": CAT, "b/2.png": DOG}),
        make.zipped({"all/metadata.jsonl": make.lines({"file_name": "1.png", "label": "cat"},
                                                      {"file_name": "2.png", "label": "dog"}),
                     "all/1.png": CAT, "all/2.png": DOG}),
        make.parquet([{"image": {"bytes": CAT, "path": "1.png"}, "label": "cat"},
                      {"image": {"bytes": DOG, "path": "2.png"}, "label": "dog"}]),
    ],
    ids=["zip", "tar", "tar.gz", "tar.zst", "metadata.csv", "metadata.jsonl", "parquet"],
)  # fmt: skip
def test_labelled_images(tmp_path: Path, content: bytes) -> None:
    prepared, rows = ingest(tmp_path, content, task="image-classification")
    assert [(row["image"], row["label"], row["width"], row["height"]) for row in rows] == [
        (CAT, "cat", 12, 10),
        (DOG, "dog", 20, 8),
    ]
    assert prepared.labels == ["cat", "dog"]


@pytest.mark.parametrize(
    "files",
    [
        {"a\\1.png": CAT, "b\\1.png": DOG},
        {"a/1.png": CAT, "b/1.png": DOG, "a/.ipynb_checkpoints/1.png": CAT, ".git/x.csv": "a,b\n"},
        {"metadata.csv": "file_name,label\nx\\1.PNG,a\ngr\u00fcn.png,b\n", "x/1.png": CAT,
         "gru\u0308n.png": DOG},
        {"labels/metadata.csv": "file_name,label\n1.png,a\n2.png,b\n", "x/1.png": CAT,
         "x/2.png": DOG},
    ],
    ids=["Windows", "hidden folders", "other spellings", "elsewhere"],
)  # fmt: skip
def test_archives_as_machines_write_them(tmp_path: Path, files: dict[str, bytes | str]) -> None:
    prepared, rows = ingest(tmp_path, make.zipped(files), task="image-classification")
    assert [(row["image"], row["label"]) for row in rows] == [(CAT, "a"), (DOG, "b")]
    assert "unused_files" not in {found["code"] for found in prepared.report["findings"]}


def test_images_without_a_row_are_told(tmp_path: Path) -> None:
    table = "file_name,label\n1.png,a\n2.png,b\n"
    content = make.zipped({"metadata.csv": table, "1.png": CAT, "2.png": DOG, "3.png": DOG})
    prepared, _ = ingest(tmp_path, content, task="image-classification")
    told = {found["code"]: found["places"] for found in prepared.report["findings"]}
    assert [place["entry"] for place in told["unused_files"]] == ["3.png"]


def test_an_image_that_is_missing_is_not_its_own_mask(tmp_path: Path) -> None:
    table = "file_name,mask_file_name\na.png,masks/a.png\n"
    content = make.zipped({"metadata.csv": table, "masks/a.png": make.mask(), "b.png": CAT})
    error = refused(tmp_path, content, task="image-segmentation")
    assert error.details[0]["code"] == "missing_file"


def test_sideways_photographs_have_the_size_that_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = make.image(30, 20, format="JPEG", exif=exif)
    content = make.zipped({"a/1.jpg": photo, "b/2.png": DOG})
    _, rows = ingest(tmp_path, content, task="image-classification")
    assert (rows[0]["width"], rows[0]["height"]) == (20, 30)


BOX = {"boxes": [[1.0, 2.0, 4.0, 5.0]], "categories": ["valve"], "crowd": [False]}


@pytest.mark.parametrize(
    "content",
    [
        make.zipped({"annotations.json": make.coco(), "a.png": CAT}),
        make.zipped({"instances.json": make.coco(), "images/a.png": CAT}),
        make.zipped({"annotations/instances_train2017.json": make.coco(),
                     "train2017/a.png": CAT}),
        make.zipped({"a.png": CAT, "metadata.jsonl": make.lines(
            {"file_name": "a.png", "objects": {"bbox": [[1, 2, 4, 5]], "category": ["valve"]}})}),
        make.zipped({"a.png": CAT, "metadata.jsonl": make.lines(
            {"file_name": "a.png", "objects": [{"bbox": [1, 2, 4, 5], "label": "valve"}]})}),
        make.zipped({"images/a.png": CAT, "labels/a.txt": "0 0.25 0.45 0.33333333 0.5\n",
                     "data.yaml": "names:\n  0: valve\n"}),
        make.zipped({"images/a.png": CAT, "labels/a.txt": "0 0.25 0.45 0.33333333 0.5\n",
                     "classes.txt": "valve\n"}),
    ],
    ids=["coco", "coco images", "coco's own", "objects", "list of objects", "yolo yaml",
         "yolo classes"],
)  # fmt: skip
def test_boxes(tmp_path: Path, content: bytes) -> None:
    prepared, rows = ingest(tmp_path, content, task="object-detection")
    (row,) = rows
    assert row["boxes"] == [pytest.approx(BOX["boxes"][0], abs=1e-4)]
    assert (row["categories"], row["crowd"], row["image"]) == (["valve"], [False], CAT)
    assert prepared.labels == ["valve"]


def pixels(data: bytes) -> list[int]:
    return [int(str(value)) for value in Image.open(io.BytesIO(data)).get_flattened_data()]


def test_masks_beside_images(tmp_path: Path) -> None:
    content = make.zipped(
        {"images/a.png": CAT, "masks/a_mask.png": make.mask(values=(0, 2, 255)),
         "labels.json": json.dumps({"0": "sky", "1": "road", "2": "tree"})}
    )  # fmt: skip
    prepared, rows = ingest(tmp_path, content, task="image-segmentation")
    assert (rows[0]["mask_ids"], rows[0]["mask_labels"]) == ([0, 2], ["sky", "tree"])
    assert prepared.labels == ["sky", "tree"]
    assert pixels(rows[0]["mask"])[:3] == [0, 2, 255]


def test_masks_of_images_of_one_name_are_those_beside_them(tmp_path: Path) -> None:
    content = make.zipped(
        {"x/images/a.png": CAT, "x/masks/a.png": make.mask(values=(0, 1)),
         "y/images/a.png": DOG, "y/masks/a.png": make.mask(20, 8, values=(0, 2)),
         "classes.txt": b"\xef\xbb\xbfsky\r\nroad\r\ntree\r\n"}
    )  # fmt: skip
    _, rows = ingest(tmp_path, content, task="image-segmentation")
    assert [row["mask_labels"] for row in rows] == [["sky", "road"], ["sky", "tree"]]


def test_masks_in_a_table(tmp_path: Path) -> None:
    content = make.zipped(
        {"metadata.csv": "file_name,mask_file_name\na.png,m.png\n", "a.png": CAT,
         "m.png": make.mask()}
    )  # fmt: skip
    assert ingest(tmp_path, content, task="image-segmentation")[0].labels == ["0", "1"]


def test_polygons_and_run_lengths_draw_the_same(tmp_path: Path) -> None:
    def drawn(segmentation: object) -> list[int]:
        annotation = {"image_id": 7, "category_id": 3, "segmentation": segmentation}
        document = make.coco(annotations=[annotation])
        content = make.zipped({"a.json": document, "a.png": CAT})
        _, rows = ingest(tmp_path, content, task="image-segmentation")
        assert rows[0]["mask_labels"] == ["background", "valve"]
        return pixels(rows[0]["mask"])

    polygon = drawn([[2, 3, 4, 3, 4, 5, 2, 5]])
    inside = [(x, y) for y in range(10) for x in range(12) if polygon[y * 12 + x]]
    assert inside == [(x, y) for y in (3, 4, 5) for x in (2, 3, 4)]
    # Column by column: two columns and three pixels outside, then three columns of three.
    runs = [23, 3, 7, 3, 7, 3, 74]
    assert drawn({"size": [10, 12], "counts": runs}) == polygon
    assert drawn({"size": [10, 12], "counts": packed(runs)}) == polygon


def packed(counts: list[int]) -> str:
    """COCO's compressed run lengths, written from its description."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            text += chr(bits + (32 if more else 0) + 48)
    return text


@pytest.mark.parametrize(
    "content",
    [
        make.zipped({"metadata.csv": "file_name,transcription\n1.wav,yes please\n2.wav,no\n",
                     "1.wav": YES, "2.wav": NO}),
        make.zipped({"cv/train.tsv": "client_id\tpath\tsentence\nx\t1.wav\tyes please\n"
                                     "x\t2.wav\tno\n",
                     "cv/clips/1.wav": YES, "cv/clips/2.wav": NO}),
        make.parquet([{"audio": {"bytes": YES, "path": None}, "text": "yes please"},
                      {"audio": {"bytes": NO, "path": None}, "text": "no"}]),
    ],
    ids=["metadata", "common voice", "parquet"],
)  # fmt: skip
def test_transcribed_recordings(tmp_path: Path, content: bytes) -> None:
    _, rows = ingest(tmp_path, content, task="automatic-speech-recognition")
    assert [(row["audio"], row["text"], row["sampling_rate"], row["seconds"]) for row in rows] == [
        (YES, "yes please", 8000, 0.5),
        (NO, "no", 16000, 0.25),
    ]


def test_labelled_recordings(tmp_path: Path) -> None:
    content = make.zipped({"yes/1.wav": YES, "no/1.wav": NO})
    prepared, rows = ingest(tmp_path, content, task="audio-classification")
    assert prepared.labels == ["no", "yes"]
    assert [row["file"] for row in rows] == ["no/1.wav", "yes/1.wav"]


def test_spoken_texts(tmp_path: Path) -> None:
    table = "file_name,text,speaker\n1.wav,yes please,ada\n2.wav,no,\n"
    content = make.zipped({"metadata.csv": table, "1.wav": YES, "2.wav": NO})
    _, rows = ingest(tmp_path, content, task="text-to-speech")
    assert [row["speaker"] for row in rows] == ["ada", None]


def test_remarks_on_recordings(tmp_path: Path) -> None:
    table = "file_name,transcription\n1.wav,a\n2.wav,b\n3.wav," + "c" * 100 + "\n"
    content = make.zipped(
        {"metadata.csv": table, "1.wav": make.sound(level=0), "2.wav": make.sound(level=9),
         "3.wav": YES}
    )  # fmt: skip
    prepared, _ = ingest(tmp_path, content, task="automatic-speech-recognition")
    remarks = [(found["code"], found["places"][0]["line"]) for found in prepared.report["findings"]]
    assert remarks == [("silent_audio", 2), ("clipped_audio", 3), ("transcript_too_long", 4)]
