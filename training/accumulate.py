"""The gradient of one optimizer step, summed over its micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from training import devices
from training.batch_plan import Rows
from training.failures import NonFiniteLoss
from training.state import Values
from training.tasks.base import Examples, Task


@dataclass(frozen=True)
class Totals:
    """What a step was made of."""

    count: int
    """Supervised items: what the gradient is to be divided by."""
    tokens: int
    means: Values
    """`loss` and what else the task reports, over the step's items."""


def accumulate(
    task: Task[Any],
    model: PreTrainedModel,
    examples: Examples,
    micro_batches: Sequence[Rows],
    *,
    step: int,
    epoch: int,
    half: torch.dtype | None = None,
    scale: float = 1.0,
) -> Totals:
    """Add the gradient of the micro-batches' summed loss, times `scale`, to the parameters' `grad`.

    Raises NonFiniteLoss with the rows of the micro-batches whose loss is not finite, or which have
    nothing to learn from at all.
    """
    count, tokens = 0, 0
    names: list[str] = []
    sums: list[torch.Tensor] = []
    for rows in micro_batches:
        batch = task.collate(examples, rows, epoch).to(model.device)
        with devices.autocast(model.device, half):
            loss = task.loss(model, batch)
        (loss.sum * scale).backward()
        count, tokens = count + loss.count, tokens + batch.tokens
        names = ["loss", *loss.train_sums]
        sums.append(torch.stack([loss.sum.detach(), *loss.train_sums.values()]))
    # One read a step: every read waits for the device.
    by_micro_batch = torch.stack(sums).double().cpu().numpy()
    lost = [
        rows
        for rows, values in zip(micro_batches, by_micro_batch, strict=True)
        if not count or not math.isfinite(values[0])
    ]
    if lost:
        raise NonFiniteLoss.at("loss", step, examples.ids[np.concatenate(lost)], "training_file")
    means = by_micro_batch.sum(axis=0) / count
    return Totals(count, tokens, dict(zip(names, means.tolist(), strict=True)))
