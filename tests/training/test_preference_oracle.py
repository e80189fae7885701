"""The losses of preferences beside TRL's own code, on the same model and the same tokens."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.orpo import ORPOTrainer

from tests.training.cases import CASES, preferred, single_answers, write_rows
from training import tasks, tuning
from training.sequences import IGNORED
from training.tasks.base import Batch
from training.tasks.preference import Preference, _log_probability

BY_NAME = {case.name: case for case in CASES}
ROWS = 5


def moved(
    folder: Path, name: str, rows: list[dict[str, Any]], seed: int = 1, beta: float = 0.1
) -> tuple[Preference, Any, Batch]:
    """The task with a policy that has left its reference, and a batch of these rows."""
    case = BY_NAME[name]
    base = case.base(folder / "base")
    task = tasks.create(case.spec(beta=beta), lambda message: None)
    model = tuning.load(task, base, None).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    examples = task.read(write_rows(folder / "x.arrow", case.task, rows), "f", lambda: None)
    assert isinstance(task, Preference)
    return task, model, task.collate(examples, np.arange(len(rows)))


def options(folder: Path, **more: Any) -> dict[str, Any]:
    return {"output_dir": str(folder / "trl"), "use_cpu": True, "bf16": False,
            "report_to": "none", **more}  # fmt: skip


def sides(batch: Batch, *order: torch.Tensor) -> dict[str, torch.Tensor]:
    """TRL's batch: the sequences in this order, and where their answers stand."""
    places = torch.cat(order)
    return {
        "input_ids": batch.inputs["input_ids"][places],
        "attention_mask": batch.inputs["attention_mask"][places],
        "completion_mask": (batch.targets[places] != IGNORED).long(),
    }


@pytest.mark.parametrize(("name", "theirs"), [("preferences", "sigmoid"), ("ipo", "ipo")])
def test_dpo_and_ipo(tmp_path: Path, name: str, theirs: str) -> None:
    task, model, batch = moved(tmp_path, name, preferred(ROWS, 4))
    trainer = DPOTrainer(
        model=model,
        ref_model=task.reference,
        args=DPOConfig(**options(tmp_path, loss_type=[theirs], beta=task.beta)),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "base"),
    )
    chosen = torch.arange(0, 2 * ROWS, 2)
    with torch.no_grad():
        expected = trainer._compute_loss(model.eval(), sides(batch, chosen, chosen + 1), False)
        ours = task.loss(model, batch)
    assert float(ours.sum / ours.count) == pytest.approx(float(expected), rel=1e-4)


def test_kto(tmp_path: Path) -> None:
    rows = single_answers(ROWS, 4)
    task, model, batch = moved(tmp_path, "kto", rows, seed=6)
    trainer = KTOTrainer(
        model=model,
        ref_model=task.reference,
        args=KTOConfig(**options(tmp_path, beta=task.beta, per_device_train_batch_size=2)),
        train_dataset=Dataset.from_list(
            [{"prompt": "a", "completion": "b", "label": bool(row % 2)} for row in range(4)]
        ),
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "base"),
    )
    own, others = torch.arange(ROWS), torch.arange(ROWS, 2 * ROWS)
    theirs = sides(batch, own) | {f"KL_{k}": v for k, v in sides(batch, others).items()}
    theirs["label"] = torch.tensor([row["chosen"] is not None for row in rows])
    with torch.no_grad():
        expected = trainer._compute_loss(model.eval(), theirs, False)
        ours = task.loss(model, batch)
        ratio = _log_probability(model, batch) - task._reference_log_probability(model, batch)
    # The test is of something only if the shift is.
    assert float(ratio[ROWS:].mean()) > 0.01
    assert float(ours.sum / ours.count) == pytest.approx(float(expected), rel=1e-4)


def test_orpo(tmp_path: Path) -> None:
    task, model, batch = moved(tmp_path, "orpo", preferred(ROWS, 4), beta=50.0)
    with torch.no_grad():
        ours = task.loss(model, batch)
        logits = model(**batch.inputs).logits
        mean = ORPOTrainer.get_batch_logps(logits, batch.targets, average_log_prob=True)
        trainer: Any = SimpleNamespace(beta=task.beta, accelerator=SimpleNamespace(device="cpu"))
        odds, *_ = ORPOTrainer.odds_ratio_loss(trainer, mean[0::2], mean[1::2])
    # TRL's first term is over the prompt as well; the paper's, and ours, over the answer.
    expected = (-mean[0::2] - odds).sum()
    assert float(ours.sum) == pytest.approx(float(expected), rel=1e-5)
    assert task.reference is None
