"""Whole runs beside TRL's own trainers: from the users' rows to each step's loss and gradient.

TRL renders, tokenises, masks and averages by itself. Only the order of the rows is ours, which it
is given as a file that it reads from top to bottom.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from models.spec import ResolvedSpec
from tests.training.cases import CASES, Rows, chats, preferred, write_rows
from tests.training.causal import MARKED, tiny_llama
from tests.training.material import JobFolder, of_type, run
from training import tasks
from training.batch_plan import BatchPlan

ROWS, STEPS = 64, 56
BY_NAME = {case.name: case for case in CASES}


def ran(folder: Path, name: str, rows: Rows) -> tuple[JobFolder, ResolvedSpec, Rows, Rows]:
    """Our run on these rows: its folder, its spec, its training metrics, and the rows in the order
    in which the steps took them."""
    case = BY_NAME[name]
    chosen = case.spec(
        total_steps=STEPS, n_epochs=7, valid_rows=0, metric="loss", greater_is_better=False,
        weight_decay=0.05, max_grad_norm=0.5, learning_rate=1e-3,
    )  # fmt: skip
    job = JobFolder(folder / "job", tiny_llama(folder / "base", template=MARKED))
    path = write_rows(job.path / "train.arrow", case.task, rows)
    points = [
        record["values"] for record in of_type(run(job.job(chosen)), "metrics", split="train")
    ]
    task = tasks.create(chosen, lambda message: None)
    task.load(job.model, exact=False)
    plan = BatchPlan(task.read(path, "training_file", lambda: None).lengths, 8, chosen.seed)
    return job, chosen, points, [rows[row] for step in range(STEPS) for row in plan.rows(step)]


def options(folder: Path, spec: ResolvedSpec) -> dict[str, Any]:
    """The same settings, in TRL's words. Two micro-batches make a step, as with us."""
    return {
        "output_dir": str(folder / "trl"), "max_steps": STEPS, "logging_steps": 1,
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
        "train_sampling_strategy": "sequential", "learning_rate": spec.learning_rate,
        "warmup_steps": spec.warmup_steps, "lr_scheduler_type": "linear",
        "weight_decay": spec.weight_decay, "max_grad_norm": spec.max_grad_norm,
        "optim": "adamw_torch", "use_cpu": True, "bf16": False, "activation_checkpointing": False,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip


def compared(ours: Rows, trainer: Any) -> None:
    """Each loss within 1 % of theirs, each gradient's norm within 2 %."""
    trainer.train()
    theirs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(ours) == len(theirs) == STEPS
    for name, most in (("loss", 0.01), ("grad_norm", 0.02)):
        # What the Trainer logs is rounded.
        assert [point[name] for point in ours] == pytest.approx(
            [entry[name] for entry in theirs], rel=most, abs=2e-4
        ), name
    assert theirs[-1]["loss"] < 0.95 * theirs[0]["loss"]


def test_chats_are_learnt_as_by_trls_sft(tmp_path: Path) -> None:
    """Every assistant's turn, of chats with one or two, and nothing else."""
    rows = [
        row | {"messages": [{k: v for k, v in m.items() if k != "weight"} for m in row["messages"]]}
        for row in chats(ROWS, 0)
    ]
    job, spec, ours, ordered = ran(tmp_path, "chats", rows)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(job.model),
        SFTConfig(**options(tmp_path, spec), assistant_only_loss=True, packing=False),
        train_dataset=Dataset.from_list([{"messages": row["messages"]} for row in ordered]),
        processing_class=AutoTokenizer.from_pretrained(job.model),
    )
    compared(ours, trainer)


def test_preferences_are_learnt_as_by_trls_dpo(tmp_path: Path) -> None:
    rows = [row | {"chat": True} for row in preferred(ROWS, 0)]
    job, spec, ours, ordered = ran(tmp_path, "preferences", rows)
    sides = ("prompt", "chosen", "rejected")
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(job.model),
        args=DPOConfig(**options(tmp_path, spec), beta=spec.beta),
        train_dataset=Dataset.from_list([{k: row[k] for k in sides} for row in ordered]),
        processing_class=AutoTokenizer.from_pretrained(job.model),
    )
    compared(ours, trainer)
