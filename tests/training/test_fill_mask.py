from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.cases import CASES, write_rows
from tests.training.material import run
from training.sequences import IGNORED, Sequences
from training.tasks.base import Batch
from training.tasks.fill_mask import FillMask

CASE = next(case for case in CASES if case.name == "masks")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[FillMask, Sequences]:
    path = tmp_path_factory.mktemp("masks")
    task = FillMask(CASE.spec(max_length=None), print)
    task.load(CASE.folder(path / "job").model, exact=False)
    rows = [{"id": n, "text": "the movie was great " * 14} for n in range(1, 301)]
    rows.append({"id": 301, "text": "story"})
    return task, task.read(write_rows(path / "x.arrow", CASE.task, rows), "x", lambda: None)


def test_what_is_hidden_depends_on_seed_epoch_and_row_alone(
    loaded: tuple[FillMask, Sequences],
) -> None:
    task, examples = loaded
    torch.manual_seed(1)
    first = task.collate(examples, np.array([5, 9, 2]), 1)
    torch.manual_seed(2)
    again = task.collate(examples, np.array([9, 5]), 1)
    assert torch.equal(first.inputs["input_ids"][[1, 0]], again.inputs["input_ids"])
    assert torch.equal(first.targets[[1, 0]], again.targets)
    assert not torch.equal(first.targets[0], first.targets[1])
    other = task.collate(examples, np.array([5, 9, 2]), 2)
    assert not torch.equal(first.targets, other.targets)
    measured = [task.collate(examples, np.array([5])).targets for _ in range(2)]
    assert torch.equal(*measured)


def test_shares_are_those_of_bert(loaded: tuple[FillMask, Sequences]) -> None:
    task, examples = loaded
    batch = task.collate(examples, np.arange(300), 0)
    tokens, targets = batch.inputs["input_ids"], batch.targets
    special = torch.isin(tokens, torch.tensor([0, 2, 3])) & (targets == IGNORED)
    known = targets != IGNORED
    assert float(known.sum() / (~special).sum()) == pytest.approx(0.15, abs=0.01)
    hidden = (tokens == task.tokenizer.mask_token_id)[known].float().mean()
    assert float(hidden) == pytest.approx(0.8, abs=0.03)
    # One of ten replacements by chance is the mask or the word itself at so few words.
    kept = (tokens == targets)[known].float().mean()
    assert float(kept) == pytest.approx(0.1, abs=0.03)
    original = torch.from_numpy(examples.tokens["labels"][: 58 * 300].reshape(300, 58)).long()
    assert torch.equal(targets[known], original[known])
    assert torch.equal(tokens[~known], original[~known])
    assert len(tokens[known & (tokens != targets)].unique()) > 15


def test_every_row_has_something_to_tell(loaded: tuple[FillMask, Sequences]) -> None:
    task, examples = loaded
    for epoch in range(5):
        batch = task.collate(examples, np.array([300]), epoch)
        assert int((batch.targets != IGNORED).sum()) == 1


def test_a_run_masks_by_its_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []
    collate = FillMask.collate

    def noted(task: FillMask, examples: Sequences, rows: Any, epoch: int | None = None) -> Batch:
        seen.append(epoch)
        return collate(task, examples, rows, epoch)

    monkeypatch.setattr(FillMask, "collate", noted)
    run(CASE.folder(tmp_path / "job").job(CASE.spec(total_steps=9, micro_batch_size=8)))
    assert [epoch for epoch in seen if epoch is not None] == [0] * 8 + [1]
    assert None in seen
