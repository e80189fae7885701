"""The task of a file is told from its columns or its layout, in the run that checks it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadData, InvalidRequest
from ingest.child import prepare_limited
from ingest.prepare import prepare
from tests.ingest.make import coco, image, lines, mask, sound, tarred, zipped
from tests.ingest.reading import ingest

A, B = image(), image(colour=3)
OUTLINE = {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[1, 2, 5, 2, 5, 7]]}
BOX = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 4, 5]}
QUESTION = {"id": "1", "question": "Is it?", "answers": [{"text": "so", "answer_start": 6}]}
SQUAD = {"data": [{"title": "x", "paragraphs": [{"context": "It is so.", "qas": [QUESTION]}]}]}

TOLD: dict[str, tuple[str, bytes]] = {
    "table": ("text-classification", b"text,label\nfine,pos\ndull,neg\n"),
    "packed table": ("text-classification", gzip.compress(b"text,label\nfine,pos\ndull,neg\n")),
    "table in a zip": ("text-classification", zipped({"a.csv": "text,label\na,x\nb,y\n"})),
    "chats": ("text-generation", lines({"messages": [{"role": "assistant", "content": "hi"}]})),
    "CoNLL": ("token-classification", b"Ada B-PER\nhere O\n\nhello O\nBob B-PER\n"),
    "SQuAD": ("question-answering", json.dumps(SQUAD, indent=1).encode()),
    "class folders": ("image-classification", zipped({"cat/1.png": A, "dog/2.png": B})),
    "packed folders": ("image-classification", tarred({"cat/1.png": A, "dog/2.png": B}, "w:gz")),
    "named classes": (
        "image-classification",
        zipped({"metadata.csv": "file_name,label\n1.png,cat\n2.png,dog\n", "1.png": A, "2.png": B}),
    ),
    "COCO boxes": (
        "object-detection",
        zipped({"a.json": coco(annotations=[BOX]), "images/a.png": A}),
    ),
    "COCO outlines": (
        "image-segmentation",
        zipped({"a.json": coco(annotations=[OUTLINE]), "images/a.png": A}),
    ),
    "YOLO": (
        "object-detection",
        zipped(
            {"images/a.png": A, "labels/a.txt": "0 0.5 0.5 0.2 0.2\n", "classes.txt": "valve\n"}
        ),
    ),
    "masks": (
        "image-segmentation",
        zipped({"images/a.png": A, "masks/a.png": mask(), "classes.txt": "ground\nroad\n"}),
    ),
    "recordings in folders": (
        "audio-classification",
        zipped({"a/1.wav": sound(), "b/2.wav": sound()}),
    ),
    "transcripts": (
        "automatic-speech-recognition",
        zipped({"metadata.csv": "file_name,transcription\n1.wav,hello\n", "1.wav": sound()}),
    ),
    "speakers": (
        "text-to-speech",
        zipped({"metadata.csv": "file_name,text,speaker\n1.wav,hello,Ada\n", "1.wav": sound()}),
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_the_task_is_told(tmp_path: Path, name: str) -> None:
    task, content = TOLD[name]
    prepared, _ = ingest(tmp_path, content, task=None)
    assert prepared.report["task"] == task


DOUBTFUL = {
    "both boxes and outlines": (
        "object-detection, image-segmentation",
        zipped({"a.json": coco(), "images/a.png": A}),
    ),
    "texts": ("fill-mask, text-generation", b'{"text": "a"}\n'),
    "unknown columns": ("text-classification, ", b"foo,bar\n1,2\n"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_doubt_is_a_question(tmp_path: Path, name: str) -> None:
    tasks, content = DOUBTFUL[name]
    with pytest.raises(InvalidRequest) as caught:
        ingest(tmp_path, content, task=None)
    assert caught.value.error_code == "task_ambiguous"
    assert set(tasks.strip(", ").split(", ")) <= set(
        str(caught.value).split("one of: ")[1].strip(".").split(", ")
    )


@pytest.mark.parametrize(
    ("data", "task"),
    [
        ("chats", "text-classification"),
        ("table", "translation"),
        ("table", "image-classification"),
        ("class folders", "text-classification"),
        ("class folders", "object-detection"),
        ("class folders", "audio-classification"),
        ("COCO boxes", "image-classification"),
        ("YOLO", "image-segmentation"),
        ("masks", "object-detection"),
        ("recordings in folders", "image-classification"),
        ("recordings in folders", "automatic-speech-recognition"),
        ("transcripts", "audio-classification"),
        ("SQuAD", "text-classification"),
        ("table", "token-classification"),
    ],
)
def test_a_wrong_task_names_the_right_one(tmp_path: Path, data: str, task: str) -> None:
    right, content = TOLD[data]
    with pytest.raises(BadData) as caught:
        ingest(tmp_path, content, task=task)
    assert f"The file fits the task {right}." in str(caught.value)
    assert f"The file fits the task {right}." in caught.value.details[0]["hint"]


def test_a_wrong_row_of_the_right_task_names_no_other(tmp_path: Path) -> None:
    with pytest.raises(BadData) as caught:
        ingest(tmp_path, b"text,label\nfine,pos\ngood,pos\n")
    assert "fits the task" not in str(caught.value)


def test_the_child_tells_the_task_and_its_doubts(tmp_path: Path) -> None:
    def run(content: bytes) -> Any:
        source = tmp_path / "upload"
        source.write_bytes(content)
        return prepare_limited(source, None, out=tmp_path / "out", role="training", name="a.zip")

    _, content = TOLD["class folders"]
    assert run(content).report["task"] == "image-classification"
    with pytest.raises(InvalidRequest, match="cannot be told from the columns"):
        run(b'{"text": "a"}\n')


def test_an_unknown_task_is_told_before_the_file_is_opened(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="No data format is known"):
        prepare(tmp_path / "none", "x", out=tmp_path / "out", role="training")
