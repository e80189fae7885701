from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.material import (
    SPECIAL,
    WORDS,
    JobFolder,
    StopAfter,
    fresh_copy,
    run,
    spec,
    texts,
    weights_of,
    write_arrow,
)
from training.sequences import Sequences
from training.tasks.text_classification import TextClassification

KEPT = {WORDS[word] for word in (*SPECIAL, "[MASK]")}


def loaded(model: Path, path: Path, **asked: Any) -> tuple[TextClassification, Sequences]:
    task = TextClassification(spec(**asked), print)
    task.load(model, exact=False)
    return task, task.read(write_arrow(path / "a", texts(40)), "training_file", lambda: None)


def rows_of(task: TextClassification, examples: Sequences, rows: Any, epoch: int | None) -> Any:
    batch = task.collate(examples, np.array(rows), epoch)
    lengths = batch.inputs["attention_mask"].sum(dim=1)
    ids = batch.inputs["input_ids"]
    return [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]


@pytest.mark.parametrize("kind", ["token_dropout", "token_deletion", "token_swap"])
def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(
    tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    task, examples = loaded(tiny_model, tmp_path, **{kind: 0.3})
    together = rows_of(task, examples, range(12), 2)
    apart = [rows_of(task, examples, [row], 2)[0] for row in reversed(range(12))]
    assert together == apart[::-1]
    assert together != rows_of(task, examples, range(12), 3)
    other, _ = loaded(tiny_model, tmp_path, **{kind: 0.3, "seed": 8})
    assert together != rows_of(other, examples, range(12), 2)
    # An evaluation, and the rows themselves, are as they were.
    plain, _ = loaded(tiny_model, tmp_path)
    assert rows_of(task, examples, range(12), None) == rows_of(plain, examples, range(12), 2)


def test_each_kind_does_its_share_and_spares_special_tokens(
    tiny_model: Path, tmp_path: Path
) -> None:
    plain = rows_of(*loaded(tiny_model, tmp_path), range(40), 0)
    free = sum(len(row) - 2 for row in plain)
    for kind in ("token_dropout", "token_deletion", "token_swap"):
        made = rows_of(*loaded(tiny_model, tmp_path, **{kind: 0.3}), range(40), 0)
        assert all((row[0], row[-1]) == (WORDS["[CLS]"], WORDS["[SEP]"]) for row in made)
        if kind == "token_dropout":
            share = sum(row.count(WORDS["[MASK]"]) for row in made) / free
        elif kind == "token_deletion":
            share = 1 - sum(len(row) - 2 for row in made) / free
            assert all(set(row) - KEPT for row in made)
        else:
            assert [sorted(row) for row in made] == [sorted(row) for row in plain]
            share = 0.3 if made != plain else 0.0
        assert share == pytest.approx(0.3, abs=0.06), kind


def test_a_stopped_and_resumed_run_ends_in_the_same_bits(folder: JobFolder, tmp_path: Path) -> None:
    plan = spec(total_steps=20, eval_every=20, checkpoint_every=100, token_dropout=0.1,
                token_deletion=0.1, token_swap=0.1)  # fmt: skip
    run(folder.job(plan))
    broken = fresh_copy(folder, tmp_path / "broken")
    run(broken.job(plan), StopAfter(broken, 11))
    run(broken.job(plan, resume_from=broken.newest_checkpoint()))
    assert weights_of(broken.path / "output") == weights_of(folder.path / "output")
