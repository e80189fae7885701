from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForObjectDetection, DetrImageProcessorPil

from tests.training.cases import CASES, Rows, write_rows
from tests.training.pictures import COLOURS, png
from training import tasks
from training.tasks.base import Loss
from training.tasks.object_detection import ObjectDetection

CASE = next(case for case in CASES if case.name == "detr")
SIZES = [(32, 32), (16, 64), (64, 24)]
"""Widths and heights that one batch has to pad."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = CASE.base(tmp_path_factory.mktemp("detr") / "base")
    DetrImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64}).save_pretrained(folder)
    return folder


def loaded(folder: Path) -> tuple[ObjectDetection, Any]:
    task = tasks.create(CASE.spec(), lambda message: None)
    assert isinstance(task, ObjectDetection)
    return task, task.load(folder, exact=False)


def pictures() -> Rows:
    """One object in the middle of each."""
    draw = random.Random(4)
    rows: Rows = []
    for number, (width, height) in enumerate(SIZES, start=1):
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3))
        box = [width / 4, height / 4, width / 2, height / 2]
        rows.append(
            {"id": number, "image": png(pixels.astype(np.uint8)), "file": f"{number}.png",
             "width": width, "height": height, "boxes": [box],
             "categories": [draw.choice(COLOURS)], "crowd": [False]}
        )  # fmt: skip
    return rows


def test_a_box_is_a_share_of_its_image_whatever_the_batch_is_padded_to(
    base: Path, tmp_path: Path
) -> None:
    task, _ = loaded(base)
    file = write_rows(tmp_path / "x.arrow", CASE.task, pictures())
    examples = task.read(file, "training_file", lambda: None)
    together = task.collate(examples, np.arange(len(SIZES)))
    assert not together.inputs["pixel_mask"].all(), "nothing was padded"
    for wanted, _, _ in together.references:
        torch.testing.assert_close(wanted["boxes"], torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
        assert wanted["boxes"].dtype == torch.float32


def test_what_is_learnt_is_what_is_measured(base: Path, tmp_path: Path) -> None:
    """A model that tells exactly what it is taught finds every object."""
    task, _ = loaded(base)
    file = write_rows(tmp_path / "x.arrow", CASE.task, pictures())
    batch = task.collate(task.read(file, "training_file", lambda: None), np.arange(len(SIZES)))
    boxes = torch.stack([wanted["boxes"] for wanted, _, _ in batch.references])
    classes = torch.stack([wanted["class_labels"] for wanted, _, _ in batch.references])
    logits = 9.0 * torch.nn.functional.one_hot(classes, len(COLOURS) + 1)
    metrics = task.metrics(torch.device("cpu"))
    task.update(metrics, Loss(torch.zeros(()), 1, (logits, boxes), {}), batch)
    assert float(metrics.compute()["map"]) == pytest.approx(1.0)


def test_other_labels_leave_what_tells_boxes(base: Path) -> None:
    plain = AutoModelForObjectDetection.from_pretrained(base)
    _, model = loaded(base)
    before = dict(plain.bbox_predictor.named_parameters())
    for name, parameter in model.bbox_predictor.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert model.class_labels_classifier.out_features == len(COLOURS) + 1
