from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.augmentation import Augmentation
from tests.training.cases import CASES
from tests.training.material import spec
from training import mixing, tasks
from training.emphasis import Emphasis
from training.labels import class_loss
from training.mixing import Mix, Plan

CASE = next(case for case in CASES if case.name == "images")


@pytest.mark.parametrize("asked", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}])
def test_what_is_mixed_depends_on_seed_epoch_and_row_alone(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    task = tasks.create(CASE.spec(**asked), lambda message: None)
    folder = CASE.folder(tmp_path)
    task.load(folder.model, exact=False)
    examples = task.read(folder.path / "train.arrow", "f", lambda: None)
    rows = np.array([9, 2, 30])
    together = task.collate(examples, rows, 1)
    alone = task.collate(examples, rows[1:2], 1)
    assert torch.equal(together.inputs["pixel_values"][1:2], alone.inputs["pixel_values"])
    assert together.mix is not None
    assert alone.mix is not None
    assert together.mix.shares[1] == alone.mix.shares[0]
    assert together.mix.targets[1] == alone.mix.targets[0]
    later, plain = task.collate(examples, rows, 2), task.collate(examples, rows)
    assert not torch.equal(later.inputs["pixel_values"], together.inputs["pixel_values"])
    assert not torch.equal(plain.inputs["pixel_values"], together.inputs["pixel_values"])
    assert plain.mix is None


def test_images_are_blended_and_cut_by_the_share_that_is_told() -> None:
    own, other = torch.zeros(2, 3, 20, 30), torch.ones(2, 3, 20, 30)
    plans = [Plan(0, 0.7, None), Plan(0, 0.6, (0.1, 0.9))]
    made, shares = mixing.mixed(own, other, plans)
    assert made[0].unique().tolist() == pytest.approx([0.3])
    assert shares[0] == pytest.approx(0.7)
    # The part lies in a corner, and what would lie beyond the image does not count.
    assert made[1].unique().tolist() == [0.0, 1.0]
    assert made[1].mean() == pytest.approx(1 - shares[1])
    assert shares[1] > 0.6
    assert made[1, 0, 0, -1] == 1
    assert not own.any()


def test_both_ways_share_the_rows_and_partners_are_any() -> None:
    asked = Augmentation(mixup=1.0, cutmix=1.0)
    plans = [mixing.plan(asked, 50, [7, 0, row]) for row in range(400)]
    cut = sum(plan.window is not None for plan in plans)
    assert 150 < cut < 250
    assert len({plan.partner for plan in plans}) == 50
    assert np.mean([plan.share for plan in plans]) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("asked", [{}, {"label_smoothing": 0.2}, {"class_weights": "balanced"}])
def test_the_loss_is_that_of_soft_labels(asked: dict[str, Any]) -> None:
    torch.manual_seed(0)
    logits, own, others = torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 0, 1]), torch.arange(6) % 2
    shares = torch.rand(6)
    emphasis = Emphasis.of(spec(**asked), own.numpy())
    found = class_loss(logits, own, emphasis, Mix(others, shares))
    soft = shares[:, None] * functional.one_hot(own, 2)
    soft = soft + (1 - shares[:, None]) * functional.one_hot(others, 2)
    theirs = functional.cross_entropy(
        logits, soft, reduction="sum", label_smoothing=asked.get("label_smoothing", 0.0),
        weight=emphasis.weights if emphasis else None,
    )  # fmt: skip
    assert float(found.sum) == pytest.approx(float(theirs), rel=1e-5)
    right = logits.argmax(-1)
    expected = soft.gather(1, right[:, None]).sum()
    assert float(found.train_sums["accuracy"]) == pytest.approx(float(expected))
