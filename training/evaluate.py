"""Evaluation: the validation rows once each, in a stream. No logits are kept.

Ranks take batches in turn, and the first one takes in what all of them found, in the order of one
process. So a metric need not know of ranks, and the values do not hang on how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from transformers import PreTrainedModel

from core.errors import BadData
from training import devices
from training.batch_plan import Rows, longest_first
from training.failures import NonFiniteLoss
from training.mode import evaluating
from training.parallel import ALONE, Ranks
from training.state import Values
from training.tasks.base import Batch, Examples, Loss, Task


def evaluate(
    task: Task[Any],
    model: PreTrainedModel,
    examples: Examples,
    *,
    step: int,
    batch_size: int,
    batch_tokens: int | None = None,
    between_batches: Callable[[], None],
    half: torch.dtype | None = None,
    ranks: Ranks = ALONE,
) -> Values:
    """The mean loss and the task's metrics over these examples, with dropout off.

    A batch has at most `batch_size` rows, and where they are packed `batch_tokens`: no more than
    goes through the model at once in training. `between_batches` may raise to break it off. The
    model is left in the mode it came in. Raises NonFiniteLoss with the rows of the first batch that
    gave one, and BadData where no row has anything to be told.
    """
    batches = longest_first(examples.lengths, batch_size, batch_tokens)
    metrics = task.metrics(model.device)
    for metric in metrics.values():
        # Or torchmetrics would wait for the other ranks'.
        metric.distributed_available_fn = lambda: False
    total, count = 0.0, 0
    with evaluating(model):
        for turn in range(0, len(batches), ranks.count):
            between_batches()
            own = batches[turn : turn + ranks.count][ranks.rank :][:1]
            # With parts of the weights, ranks go through the model together or not at all.
            measured = own or (batches[:1] if ranks.sharded else [])
            part = ranks.together(partial(_measured, task, model, examples, measured, step, half))
            part = part if own else []
            for loss, batch, loss_sum in chain.from_iterable(ranks.gathered(part, model.device)):
                task.update(metrics, loss, batch)
                total, count = total + loss_sum, count + loss.count
    if not ranks.first:
        return ranks.told({})
    if not count:
        raise BadData(
            "The validation file holds nothing to measure by: no row has anything to be told.",
            param="validation_file",
            hint="Correct it, or leave `validation_file` out.",
        )
    task.tallied = task.tally(metrics)
    values = {name: float(value) for name, value in metrics.compute().items()}
    # A correlation with a constant is no number, and none is what is told of it.
    values = {k: v for k, v in values.items() if math.isfinite(v)}
    return ranks.told({"loss": total / count, **values})


def _measured(
    task: Task[Any],
    model: PreTrainedModel,
    examples: Examples,
    batches: list[Rows],
    step: int,
    half: torch.dtype | None,
) -> list[tuple[Loss, Batch, float]]:
    """What the metrics take of these batches, and the summed losses."""
    measured = []
    for rows in batches:
        batch = task.collate(examples, rows).to(model.device)
        with torch.inference_mode(), devices.autocast(model.device, half):
            loss = task.loss(model, batch)
        if not math.isfinite(loss_sum := float(loss.sum)):
            raise NonFiniteLoss.at("validation loss", step, examples.ids[rows], "validation_file")
        measured.append((loss, replace(batch, inputs={}), loss_sum))
    return measured
