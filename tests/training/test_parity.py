"""The loop against one written out by hand with the libraries' own parts, and against Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from tests.training.cases import CASES, Case, Rows
from tests.training.material import (
    LABELS,
    job_folder,
    of_type,
    run,
    spec,
    texts,
    tiny_bert,
    weights_of,
)
from training import dropout, tasks
from training.batch_plan import BatchPlan
from training.tasks.text_classification import TextClassification

STEPS = 20


def test_losses_norms_and_weights_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base", dropout=0.0)
    chosen = spec(
        total_steps=STEPS, micro_batch_size=3, weight_decay=0.1, max_grad_norm=0.5,
        valid_rows=0, metric="loss", greater_is_better=False,
    )  # fmt: skip
    folder = job_folder(tmp_path / "job", base)
    records = of_type(run(folder.job(chosen)), "metrics", split="train")

    task = TextClassification(chosen, print)
    model = task.load(base, exact=False).train()
    examples = task.read(folder.path / "train.arrow", "training_file", lambda: None)
    plan = BatchPlan(examples.lengths, chosen.batch_size, chosen.seed)
    spared = ("bias", "LayerNorm.weight")
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in model.named_parameters() if not n.endswith(spared)]},
            {"params": [p for n, p in model.named_parameters() if n.endswith(spared)],
             "weight_decay": 0.0},
        ],
        lr=chosen.learning_rate,
        weight_decay=chosen.weight_decay,
    )  # fmt: skip
    schedule = get_linear_schedule_with_warmup(optimizer, chosen.warmup_steps, STEPS)
    for step, record in enumerate(records):
        batch = task.collate(examples, np.sort(plan.rows(step)))
        loss = model(**batch.inputs, labels=batch.targets).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), chosen.max_grad_norm)
        assert record["values"]["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert record["values"]["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    ours = AutoModelForSequenceClassification.from_pretrained(folder.path / "output")
    for (name, parameter), theirs in zip(ours.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(parameter, theirs, atol=1e-4, rtol=1e-3, msg=name)
    assert weights_of(folder.path / "output") != weights_of(base)


TRAINER_STEPS = 56


def one_label(rows: int, seed: int) -> Rows:
    """The last one to six words of texts; the very last tells the label."""
    return [
        {"id": row, "text": " ".join(text.split()[-1 - row % 6 :]), "label": label}
        for row, text, _, label in texts(rows, seed=seed)
    ]


ONE_LABEL = Case(
    "one-label", "text-classification", one_label, AutoModelForSequenceClassification,
    changes={"labels": LABELS, "learning_rate": 5e-3},
)  # fmt: skip
COMPARED = ("many-labels", "entities", "translation", "masks", "chats")


@pytest.mark.parametrize(
    "case", [ONE_LABEL, *(c for c in CASES if c.name in COMPARED)], ids=lambda case: case.name
)
def test_loss_curves_are_those_of_transformers_trainer(case: Case, tmp_path: Path) -> None:
    """7 epochs of the same batches, packed here and padded there, dropout off: each loss within
    1 % of the Trainer's."""
    chosen = case.spec(
        total_steps=TRAINER_STEPS, n_epochs=7, valid_rows=0, metric="loss", dropout=0.0,
        greater_is_better=False, weight_decay=0.05, max_grad_norm=0.5,
        learning_rate=case.changes.get("learning_rate", 1e-3),
    )  # fmt: skip
    folder = case.folder(tmp_path / "job")
    records = of_type(run(folder.job(chosen)), "metrics", split="train")

    task = tasks.create(chosen, lambda message: None)
    model = task.load(folder.model, exact=False)
    dropout.override(model, 0.0)
    examples = task.read(folder.path / "train.arrow", "training_file", lambda: None)
    plan = BatchPlan(examples.lengths, chosen.batch_size, chosen.seed)
    batches = []
    for step in range(TRAINER_STEPS):
        batch = task.collate(examples, np.sort(plan.rows(step)), step // plan.steps_per_epoch)
        batches.append({**batch.inputs, "labels": batch.targets})

    class Fed(Trainer):
        def get_train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    trainer = Fed(
        model,
        TrainingArguments(
            str(tmp_path / "trainer"), max_steps=TRAINER_STEPS, logging_steps=1, use_cpu=True,
            learning_rate=chosen.learning_rate, warmup_steps=chosen.warmup_steps,
            weight_decay=chosen.weight_decay, max_grad_norm=chosen.max_grad_norm,
            lr_scheduler_type="linear", save_strategy="no", report_to="none", disable_tqdm=True,
            optim="adamw_torch",
        ),
        train_dataset=batches,  # type: ignore[arg-type]
    )  # fmt: skip
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    ours = [record["values"]["loss"] for record in records]
    assert len(ours) == len(theirs) == TRAINER_STEPS
    # What the Trainer logs is rounded to four places.
    assert ours == pytest.approx(theirs, rel=0.01, abs=2e-4)
    assert theirs[-1] < 0.95 * theirs[0]
