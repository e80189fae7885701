"""Texts from scratch: a folder with config and tokenizer, from the user's file to weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import engine
from tests.training.cases import CASES, plain
from tests.training.causal import tiny_llama
from tests.training.material import of_type, texts, tiny_bert, weights_of
from training import tasks
from training.failures import ModelUnavailable

BY_NAME = {case.name: case for case in CASES}


def bare(folder: Path, make: Callable[[Path], Path]) -> Path:
    """Config and tokenizer of a model, without its weights."""
    make(folder)
    (folder / "model.safetensors").unlink()
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("task", "make"),
    [
        ("text-generation", tiny_llama),
        ("fill-mask", tiny_bert),
        ("text-classification", tiny_bert),
    ],
)
def test_a_config_and_a_tokenizer_make_a_model(
    tmp_path: Path, task: str, make: Callable[[Path], Path]
) -> None:
    if task == "text-classification":
        rows = [{"text": text, "label": label} for _, text, _, label in texts(32)]
    else:
        rows = [{"text": row["text"]} for row in plain(32, 0)]
    train, valid = write(tmp_path / "t.jsonl", rows), write(tmp_path / "v.jsonl", rows[:8])
    base = bare(tmp_path / "base", make)
    asked: dict[str, Any] = {
        "tuning": "scratch",
        "hyperparameters": {"max_steps": 12, "batch_size": 8, "learning_rate": 3e-3},
    }
    first, again, other = (
        engine.run(tmp_path / str(number), base, task, train, valid, seed=seed, **asked)
        for number, seed in enumerate((1, 1, 2))
    )
    losses = [r["values"]["loss"] for r in of_type(first.records, "metrics", split="train")]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert weights_of(first.output) == weights_of(again.output)
    assert weights_of(first.output) != weights_of(other.output)
    case = next(case for case in CASES if case.task == task)
    model = case.auto.from_pretrained(first.output)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_tokenizer_with_more_tokens_than_the_config_has_room_for_is_refused(
    tmp_path: Path,
) -> None:
    folder = bare(tmp_path, tiny_llama)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    task = tasks.create(BY_NAME["passages"].spec(tuning="scratch"), print)
    with pytest.raises(ModelUnavailable, match="vocab_size is 100"):
        task.load(folder, exact=False)
