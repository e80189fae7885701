"""Evaluation: the validation rows once each, in a stream. No logits are kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from training import devices
from training.failures import NonFiniteLoss
from training.state import Values
from training.tasks.base import Examples, Task


def evaluate(
    task: Task[Any],
    model: PreTrainedModel,
    examples: Examples,
    *,
    step: int,
    batch_size: int,
    between_batches: Callable[[], None],
    half: torch.dtype | None = None,
) -> Values:
    """The mean loss and the task's metrics over these examples, with dropout off.

    `between_batches` may raise to break it off. The model is left in the mode it came in.
    Raises NonFiniteLoss with the rows of the first batch that gave one.
    """
    # The longest first: what does not fit into memory shows at once.
    order = np.argsort(-examples.lengths, kind="stable")
    metrics = task.metrics(model.device)
    total, count = 0.0, 0
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            between_batches()
            rows = order[start : start + batch_size]
            batch = task.collate(examples, rows).to(model.device)
            with torch.inference_mode(), devices.autocast(model.device, half):
                loss = task.loss(model, batch)
            if not math.isfinite(loss_sum := float(loss.sum)):
                raise NonFiniteLoss.at(
                    "validation loss", step, examples.ids[rows], "validation_file"
                )
            task.update(metrics, loss, batch)
            total, count = total + loss_sum, count + loss.count
    finally:
        model.train(was_training)
    values = {name: float(value) for name, value in metrics.compute().items()}
    # A correlation with a constant is no number, and none is what is told of it.
    return {"loss": total / count, **{k: v for k, v in values.items() if math.isfinite(v)}}
