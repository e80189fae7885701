"""What `ingest` lets through and no engine likes: each run ends, or says what is wrong with what.

pytest -m slow tests/training/test_hard_inputs.py    (two minutes)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.cases import CASES, Case, Rows, write_rows
from tests.training.material import JobFolder, of_type, run
from training.failures import classify

TEXTS = {
    "text", "source", "target", "premise", "hypothesis", "anchor", "positive", "negative",
    "sentence1", "sentence2", "question", "context", "prompt", "chosen", "rejected", "completion",
    "content", "tokens",
}  # fmt: skip


def saying(value: Any, text: str, *, inside: bool = False) -> Any:
    """A row, or a part of it, with this in place of every text; labels and files stay."""
    if isinstance(value, dict):
        return {k: saying(v, text, inside=k in TEXTS) for k, v in value.items()}
    if isinstance(value, list):
        return [saying(v, text, inside=inside) for v in value]
    return text if inside and isinstance(value, str) else copy.deepcopy(value)


def first(text: str) -> Callable[[Rows], Rows]:
    return lambda rows: [saying(rows[0], text), *rows[1:9]]


DATA: dict[str, Callable[[Rows], Rows]] = {
    "one": lambda rows: rows[:1],
    "nine": lambda rows: rows[:9],
    "alike": lambda rows: [{**rows[0], "id": n} for n in range(1, 10)],
    "unknown": lambda rows: [saying(row, "\u200b") for row in rows[:9]],
    "one-unknown": first("🙂"),
    "special": lambda rows: [saying(row, "[MASK] [PAD] [SEP]") for row in rows[:9]],
    "long": first("movie good " * 300),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "many-at-once": {"batch_size": 64, "micro_batch_size": 64},
    "short": {"max_length": 2},
    "packed": {"packing": True},
    "padded": {"packing": False},
    "average": {"ema_decay": 0.5},
    "again": {"activation_checkpointing": True},
    "hot": {"learning_rate": 1e6, "max_grad_norm": 1e9},
}
HARD = [
    *((data, "") for data in DATA),
    *(("nine", settings) for settings in SETTINGS),
    ("one", "many-at-once"),
    ("long", "short"),
    ("long", "padded"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("data", "settings"), HARD)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_ends_or_says_what_is_wrong(
    case: Case, data: str, settings: str, tmp_path: Path
) -> None:
    counts = {}
    for split, count, seed in (("train", 64, 0), ("valid", 24, 1)):
        rows = DATA[data](case.rows(count, seed))
        counts[f"{split}_rows"] = len(rows)
        write_rows(tmp_path / "job" / f"{split}.arrow", case.task, rows)
    plan = {"total_steps": 3, "eval_every": 2, "checkpoint_every": 2}
    spec = case.spec(**counts, **plan, **SETTINGS.get(settings, {}))
    folder = JobFolder(tmp_path / "job", case.base(tmp_path / "base"))
    try:
        records = run(folder.job(spec))
    except Exception as error:  # noqa: BLE001 - as a trainer reports whatever ends its run
        told = classify(error)
        assert told.error_code != "internal", told
        assert told.hint
        return
    assert of_type(records, "done")
    assert not of_type(records, "log", level="error")
    for point in of_type(records, "metrics"):
        assert all(map(math.isfinite, point["values"].values()))
