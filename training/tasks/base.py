"""What a task is to the loop: a model, examples, a loss over a batch, and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics import MetricCollection
from transformers import PreTrainedModel

from models.spec import ResolvedSpec
from training.emphasis import Emphasis
from training.metrics import Confusion
from training.mixing import Mix

Log = Callable[[str], None]


class Examples(Protocol):
    """Encoded rows, which a task's `collate` finds by position."""

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """The rows' numbers in the user's file."""

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """What rows are padded by: tokens, frames, ..."""


E = TypeVar("E", bound=Examples)


@dataclass(frozen=True)
class Batch:
    """One micro-batch: what the model's forward takes, and what the loss compares with."""

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    tokens: int
    """Without padding."""
    references: list[Any] = field(default_factory=list)
    """A row's: what the metrics compare with beside the targets. It stays on the CPU."""
    mix: Mix | None = None
    """What else is in the rows of a training step."""

    def to(self, device: torch.device) -> Batch:
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        mix = self.mix.to(device) if self.mix is not None else None
        return replace(self, inputs=inputs, targets=self.targets.to(device), mix=mix)


@dataclass(frozen=True)
class Loss:
    """A summed loss and what it was summed over. Nobody but the loop takes a mean."""

    sum: torch.Tensor
    """Scalar, fp32, with its graph."""
    count: int
    """Supervised items: rows, tokens, ..."""
    outputs: Any
    """What the metrics need of the model's outputs, without graph."""
    train_sums: dict[str, torch.Tensor]
    """What a training step reports beside the loss, summed over the same items: fp32 scalars."""


class Task(ABC, Generic[E]):
    """One kind of training. `load` comes first: it settles tokenizer and model together."""

    model_class: ClassVar[Any]
    """The Auto class that finds the model's class."""
    metric_names: tuple[str, ...]
    """What `metrics` computes. `loss` comes beside them."""
    base: Path | None = None
    """The base model's folder, for a task that compares with it."""
    train: Path | None = None
    """The training rows, for a task that takes more than examples from them."""
    cache: Path | None = None
    """Where encoded rows may be kept for later runs."""
    joins_rows: bool = False
    """Whether the loss sets the rows of a step against each other. It is then given all of them as
    one batch, whatever the micro-batch, and takes care of the memory itself: of `rows_at_once`."""
    rows_at_once: int | None = None
    drawn: set[str]
    """The parameters that the base model lacked, as `load` found."""
    emphasis: Emphasis | None = None
    """What a step makes of classes, where the spec wants more than plain cross-entropy."""
    tallied: dict[str, Any]
    """What the newest evaluation counted, as `tally` gives it."""

    def __init__(self, spec: ResolvedSpec, log: Log) -> None:
        self.spec = spec
        self.log = log
        self.drawn = set()
        self.tallied = {}

    @classmethod
    def model_types(cls) -> set[str]:
        """The `model_type`s that can be trained."""
        return {config.model_type for config in cls.model_class._model_mapping}

    def from_scratch(self, *, exact: bool) -> bool:
        """Whether `load` is to draw all weights. A checkpoint is read whatever the tuning."""
        return self.spec.tuning == "scratch" and not exact

    @abstractmethod
    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        """The model in fp32, from a base model or, `exact`, from a checkpoint of this run.

        Parts that a base model lacks are drawn from the spec's seed; a checkpoint lacks none.
        Raises ModelUnavailable.
        """

    @abstractmethod
    def read(self, path: Path, param: str, between_chunks: Callable[[], None]) -> E:
        """Encode an Arrow file in the task's schema. `between_chunks` may raise to break it off.

        Raises BadData with the rows that cannot be trained on, and the `param` that brought them.
        """

    @abstractmethod
    def collate(self, examples: E, rows: npt.NDArray[np.int64], epoch: int | None = None) -> Batch:
        """The examples at these positions as one padded batch on the CPU.

        What is drawn for a row depends on (seed, epoch, the row's number) and on nothing else, so
        that neither a resume nor another split of the step changes it. No epoch is an evaluation.
        """

    @abstractmethod
    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """The loss of a batch, summed."""

    def emphasis_in(self, model: PreTrainedModel) -> Emphasis | None:
        """What is made of classes in the mode that the model is in."""
        return self.emphasis if model.training else None

    @abstractmethod
    def metrics(self, device: torch.device) -> MetricCollection:
        """Fresh metrics for one evaluation, named as in `metric_names`."""

    @abstractmethod
    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        """Take a batch into the metrics."""

    def tally(self, metrics: MetricCollection) -> dict[str, Any]:
        """Counts behind an evaluation's scores that a picture can be made of, as JSON: `confusion`,
        rows by (class, class told), or `by_label`, each label's (found, wrongly told, missed)."""
        for metric in metrics.values():
            if isinstance(metric, Confusion):
                return {"confusion": metric.counts.tolist()}
        return {}

    def tell(self, model: PreTrainedModel, examples: E, rows: npt.NDArray[np.int64]) -> list[Any]:
        """What the model, in evaluation, makes of each of these few rows, as JSON for people to see
        beside the row (training/report/samples.py). No more than fits into memory at once."""
        batch = self.collate(examples, rows).to(model.device)
        return self.told(self.loss(model, batch), batch)

    def told(self, loss: Loss, batch: Batch) -> list[Any]:
        """The same of a batch whose loss is at hand; nothing, unless a task says what."""
        return []

    @abstractmethod
    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write a plain Hugging Face folder, the same bytes for the same weights."""
