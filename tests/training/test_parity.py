"""The loop against one written out by hand with the libraries' own parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

from tests.training.material import job_folder, of_type, run, spec, tiny_bert, weights_of
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
