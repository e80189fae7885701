"""What tasks that tell classes share: the config's labels, class numbers, loss and metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import PreTrainedConfig

from training.emphasis import Emphasis
from training.metrics import confusion
from training.mixing import Mix
from training.sequences import bad_rows
from training.tasks.base import Loss

UNKNOWN = "have a label that no row of the training file has"
CLASS_METRICS = ("accuracy", "f1_macro")


def set_labels(config: PreTrainedConfig, labels: list[str]) -> bool:
    """Give a config these classes, in this order; whether they are those that it had.

    A head that was trained for others, or for the same in another order, would bring its meanings
    along wherever its shape happens to fit.
    """
    known = [label for _, label in sorted((config.id2label or {}).items())]
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    return known == labels


def class_ids(
    column: Any, labels: list[str], ids: npt.NDArray[np.int64], param: str
) -> npt.NDArray[np.int64]:
    """The class number of each row's label. Raises BadData for labels without one."""
    found = pc.index_in(column, pa.array(labels, pa.string()))
    if found.null_count:
        raise bad_rows(ids[found.is_null().to_numpy()], UNKNOWN, param)
    return np.array(found, dtype=np.int64)


def class_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    emphasis: Emphasis | None = None,
    mix: Mix | None = None,
) -> Loss:
    """Cross-entropy in fp32 of logits (rows, classes), summed; `outputs` are the classes told.

    Of mixed rows it is that of soft labels. Cross-entropy is linear in them, smoothed or weighed
    by class as well, so both classes' losses add up by their shares.
    """
    logits = logits.float()
    classes = logits.detach().argmax(dim=-1)

    def of(wanted: torch.Tensor) -> torch.Tensor:
        if emphasis is None:
            return functional.cross_entropy(logits, wanted, reduction="none")
        return emphasis.losses(logits, wanted)

    losses, right = of(targets), (classes == targets).float()
    if mix is not None:
        losses = mix.of(losses, of(mix.targets))
        right = mix.of(right, (classes == mix.targets).float())
    return Loss(
        sum=losses.sum(), count=len(targets), outputs=classes, train_sums={"accuracy": right.sum()}
    )


def class_names(loss: Loss, labels: list[str]) -> list[str]:
    """What `class_loss` told, by name."""
    return [labels[number] for number in loss.outputs.tolist()]


def class_metrics(classes: int) -> MetricCollection:
    """Those named in `CLASS_METRICS`, and the counts that lie behind them."""
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "f1_macro": MulticlassF1Score(classes, average="macro"),
            **confusion(classes),
        }
    )
