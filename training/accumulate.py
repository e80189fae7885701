"""The gradient of one optimizer step, summed over its micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from training import devices
from training.batch_plan import Rows
from training.failures import NonFiniteLoss
from training.parallel import ALONE, Ranks
from training.state import Values
from training.tasks.base import Examples, Task


@dataclass(frozen=True)
class Totals:
    """What a step was made of."""

    count: int
    """Supervised items: what the gradient is to be divided by. 0 where no row has any: there is
    nothing to learn then, and no mean."""
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
    ranks: Ranks = ALONE,
    rounds: int = 0,
) -> Totals:
    """Add the gradient of the micro-batches' summed loss, times `scale`, to the parameters' `grad`.

    With several ranks these are one's share of the step. Gradient and totals are those of all.
    `rounds` is how often each has to go through the model at least, where they do so together.
    Raises NonFiniteLoss with the rows of the micro-batches whose loss is not finite, and
    MemoryError if another rank ran out of memory.
    """
    work = partial(_share, task, model, examples, micro_batches, epoch, half, scale, rounds)
    count, tokens, names, by_micro_batch = ranks.together(work)
    finite = [math.isfinite(values[0]) for values in by_micro_batch]
    items, all_tokens, *sums = ranks.total([count, tokens, *by_micro_batch.sum(axis=0).tolist()])
    lost = [rows for rows, well in zip(micro_batches, finite, strict=True) if not well]
    if lost:
        raise NonFiniteLoss.at("loss", step, examples.ids[np.concatenate(lost)], "training_file")
    if not items:
        return Totals(0, int(all_tokens), {})
    ranks.sum_gradients(model)
    means = [value / items for value in sums]
    return Totals(int(items), int(all_tokens), dict(zip(names, means, strict=True)))


def _share(
    task: Task[Any],
    model: PreTrainedModel,
    examples: Examples,
    micro_batches: Sequence[Rows],
    epoch: int,
    half: torch.dtype | None,
    scale: float,
    rounds: int,
) -> tuple[int, int, list[str], npt.NDArray[np.float64]]:
    """Items, tokens, what the loss and the task report, and their sums (micro-batches, names)."""
    count, tokens = 0, 0
    names = ["loss"]
    sums: list[torch.Tensor] = []
    for rows in micro_batches:
        batch = task.collate(examples, rows, epoch).to(model.device)
        with devices.autocast(model.device, half):
            loss = task.loss(model, batch)
        (loss.sum * scale).backward()
        count, tokens = count + loss.count, tokens + batch.tokens
        names = ["loss", *loss.train_sums]
        sums.append(torch.stack([loss.sum.detach(), *loss.train_sums.values()]))
    for _ in range(rounds - len(micro_batches)):
        # The others' turn, in which this one has no row of its own.
        batch = task.collate(examples, np.zeros(1, dtype=np.int64), epoch).to(model.device)
        with devices.autocast(model.device, half):
            loss = task.loss(model, batch)
        (loss.sum * 0).backward()
    # One read a step: every read waits for the device.
    found = torch.stack(sums).double().cpu().numpy() if sums else np.zeros((0, 1))
    return count, tokens, names, found
