"""Object detection and semantic segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import BadData
from ingest.limits import Limits
from ingest.media.images import class_ids
from tests.training.cases import CASES, Rows, write_rows
from tests.training.pictures import masks, patches, png
from training import tasks
from training.detections import DetectionScores
from training.segments import SegmentationScores
from training.tasks.base import Batch, Loss

BY_NAME = {case.name: case for case in CASES}


def loaded(path: Path, name: str) -> tuple[Any, Any]:
    case = BY_NAME[name]
    task = tasks.create(case.spec(), lambda message: None)
    return task, task.load(case.base(path / "base"), exact=False).eval()


def batch_of(task: Any, path: Path, rows: Rows) -> Batch:
    file = write_rows(path / "x.arrow", task.spec.task, rows)
    batch: Batch = task.collate(task.read(file, "f", lambda: None), np.arange(len(rows)))
    return batch


@pytest.mark.parametrize("name", ["yolos", "detr"])
def test_an_image_alone_has_the_loss_of_the_models_class(tmp_path: Path, name: str) -> None:
    task, model = loaded(tmp_path, name)
    rows = patches(5, 3)
    sums = []
    for row in rows:
        batch = batch_of(task, tmp_path, [row])
        labels = [wanted for wanted, _, _ in batch.references]
        with torch.no_grad():
            ours = task.loss(model, batch)
            theirs = model(**batch.inputs, labels=labels).loss
        assert float(ours.sum) == pytest.approx(float(theirs), rel=1e-5)
        sums.append(float(ours.sum))
    with torch.no_grad():
        together = task.loss(model, batch_of(task, tmp_path, rows))
    assert float(together.sum) == pytest.approx(sum(sums), rel=1e-4)


def test_boxes_that_are_told_right_score_one(tmp_path: Path) -> None:
    """In pixels of the image as it came, whatever size the model saw."""
    task, _ = loaded(tmp_path, "yolos")
    batch = batch_of(task, tmp_path, patches(6, 3))

    def scored(move: float) -> dict[str, torch.Tensor]:
        logits, boxes = torch.full((6, 2, 3), -9.0), torch.full((6, 2, 4), 0.5)
        logits[:, :, 2] = 9.0
        for place, (_, objects, (width, height)) in enumerate(batch.references):
            for item in objects:
                x, y, w, h = item["bbox"]
                centre = [(x + w / 2) / width + move, (y + h / 2) / height, w / width, h / height]
                boxes[place, 0] = torch.tensor(centre)
                logits[place, 0] = torch.tensor([-9.0, -9.0, -9.0])
                logits[place, 0, item["category_id"]] = 9.0
        metrics = task.metrics(torch.device("cpu"))
        outcome = Loss(torch.zeros(()), 6, (logits, boxes), {})
        task.update(metrics, outcome, batch)
        values: dict[str, torch.Tensor] = metrics.compute()
        return values

    right = scored(0.0)
    assert (float(right["map"]), float(right["map_50"])) == (1.0, 1.0)
    off = scored(0.06)
    assert 0 < float(off["map"]) < float(off["map_50"])


def test_a_crowd_is_neither_to_be_found_nor_wrong_to_find() -> None:
    def item(crowd: int, box: list[float]) -> dict[str, Any]:
        return {"bbox": box, "category_id": 0, "iscrowd": crowd}

    one, crowd = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]
    found = [{"bbox": box, "category_id": 0, "score": score}
             for box, score in ((one, 0.5), ([25.0, 25.0, 9.0, 9.0], 0.9))]  # fmt: skip
    scores = DetectionScores(1)
    scores.update([found], [[item(0, one), item(1, crowd)]])
    assert float(scores.compute()["map"]) == pytest.approx(1.0)
    plain = DetectionScores(1)
    plain.update([found], [[item(0, one)]])
    assert float(plain.compute()["map"]) == pytest.approx(0.5)


def test_boxes_that_are_no_numbers_make_the_loss_none(tmp_path: Path) -> None:
    task, model = loaded(tmp_path, "yolos")
    with torch.no_grad():
        for parameter in model.bbox_predictor.parameters():
            parameter.fill_(torch.nan)
        assert task.loss(model, batch_of(task, tmp_path, patches(2, 1))).sum.isnan()


def test_intersection_over_union_is_over_all_pixels() -> None:
    true = torch.tensor([0, 0, 0, 1, 1, 2])
    told = torch.tensor([0, 0, 1, 1, 1, 1])
    metric = SegmentationScores(5)
    metric.update(told[:2], true[:2])
    metric.update(told[2:], true[2:])
    values = metric.compute()
    # Class 0: 2 of 3; class 1: 2 of 4; class 2: none of 1; 3 and 4 are nowhere.
    assert float(values["mean_iou"]) == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)
    assert float(values["pixel_accuracy"]) == pytest.approx(4 / 6)


def test_a_mask_has_the_classes_of_the_spec_and_pixels_without(tmp_path: Path) -> None:
    task, _ = loaded(tmp_path, "segments")
    rows = masks(3, 1)
    batch = batch_of(task, tmp_path, rows)
    assert batch.targets.shape == (3, 32, 32)
    for classes, row in zip(batch.targets, rows, strict=True):
        colour = task.spec.labels.index(row["mask_labels"][1])
        assert set(classes.unique().tolist()) == {0, colour, 255}
        assert (classes == 255).sum() <= 4


def test_a_larger_mask_is_brought_to_the_models_size_without_new_classes(tmp_path: Path) -> None:
    task, _ = loaded(tmp_path, "segments")
    mask = np.kron(np.array([[0, 7], [7, 0]], dtype=np.uint8), np.ones((50, 41), dtype=np.uint8))
    row = masks(1, 1)[0] | {
        "image": png(np.zeros((100, 82, 3), dtype=np.uint8)), "mask": png(mask),
        "mask_ids": [0, 7], "mask_labels": ["background", "blue"],
    }  # fmt: skip
    classes = batch_of(task, tmp_path, [row]).targets[0]
    assert classes.unique().tolist() == [0, 1]
    assert classes[:16, :16].unique().tolist() == [0]
    assert classes[:16, 16:].unique().tolist() == [1]


@pytest.mark.parametrize("name", ["yolos", "segments"])
def test_a_class_that_training_lacks_is_refused_with_its_row(tmp_path: Path, name: str) -> None:
    task, _ = loaded(tmp_path, name)
    rows = BY_NAME[name].rows(4, 3)
    column = "categories" if name == "yolos" else "mask_labels"
    rows[2][column] = ["never seen" for _ in rows[2][column]]
    with pytest.raises(BadData, match="have a label") as caught:
        batch_of(task, tmp_path, rows)
    assert caught.value.details == [{"row": 3}]


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 9), (np.uint16, 1000), (np.bool_, None)])
def test_masks_of_all_depths_that_are_taken_are_read(
    tmp_path: Path, dtype: Any, value: int | None
) -> None:
    """Of single bits, 1 is 255, which has no class."""
    task, _ = loaded(tmp_path, "segments")
    mask = np.zeros((32, 32), dtype=dtype)
    mask[:16] = True if value is None else value
    ids, names = ([0], ["background"]) if value is None else ([0, value], ["background", "blue"])
    _, found = class_ids(png(mask), Limits())
    assert found == sorted({*ids, 255 if value is None else 0})
    row = masks(1, 1)[0] | {"mask": png(mask), "mask_ids": ids, "mask_labels": names}
    classes = batch_of(task, tmp_path, [row]).targets[0]
    assert classes[:16].unique().tolist() == [255 if value is None else 1]
    assert classes[16:].unique().tolist() == [0]


def test_more_classes_than_a_byte_tells_apart_are_refused(tmp_path: Path) -> None:
    case = BY_NAME["segments"]
    task = tasks.create(case.spec(labels=[f"{n:03}" for n in range(256)]), print)
    rows = masks(1, 1)
    with pytest.raises(BadData, match="256 classes, and at most 255"):
        batch_of(task, tmp_path, rows)
