"""Text classification: of a text or a pair, one label, several labels, or a number."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn import functional
from torchmetrics import (
    MeanSquaredError,
    Metric,
    MetricCollection,
    PearsonCorrCoef,
    SpearmanCorrCoef,
)
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelExactMatch,
    MultilabelF1Score,
)
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from models.spec import ResolvedSpec
from training import noise
from training.labels import UNKNOWN, class_ids, class_loss, class_names, set_labels
from training.metrics import confusion
from training.sequences import Encoded, Sequences, bad_rows
from training.tasks.base import Batch, Log, Loss
from training.tasks.text import TextTask

Problem = Literal["single_label_classification", "multi_label_classification", "regression"]

PROBLEMS: dict[str, Problem] = {
    "text,label": "single_label_classification",
    "text,labels": "multi_label_classification",
    "text,target": "regression",
}
"""What transformers calls it, by the shape that the data has."""


class TextClassification(TextTask):
    model_class = AutoModelForSequenceClassification

    def __init__(self, spec: ResolvedSpec, log: Log) -> None:
        super().__init__(spec, log)
        self.problem = PROBLEMS[spec.shape or "text,label"]
        self.metric_names = tuple(self._metrics())

    @property
    def pads_left(self) -> bool:  # type: ignore[override]
        return self.tokenizer.padding_side == "left"

    def configure(self, config: PreTrainedConfig) -> bool:
        same_problem = config.problem_type in (None, self.problem)
        config.problem_type = self.problem
        config.pad_token_id = self.tokenizer.pad_token_id
        if self.problem != "regression":
            return set_labels(config, self.spec.labels) and same_problem
        config.num_labels = 1
        return same_problem

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> Encoded:
        targets = self._targets(table, ids, param)
        texts, pairs = table["text"].to_pylist(), table["text_pair"].to_pylist()
        names = ["input_ids", *(["token_type_ids"] if self.takes_segments else [])]
        tokens: dict[str, list[list[int]]] = {name: [[]] * len(texts) for name in names}
        for rows in (
            [row for row, pair in enumerate(pairs) if pair is None],
            [row for row, pair in enumerate(pairs) if pair is not None],
        ):
            if not rows:
                continue
            encoded = self.tokenizer(
                [texts[row] for row in rows],
                None if pairs[rows[0]] is None else [pairs[row] for row in rows],
                truncation=self.max_length is not None,
                max_length=self.max_length,
                return_attention_mask=False,
                return_token_type_ids=self.takes_segments,
            )
            for name in names:
                for row, values in zip(rows, encoded[name], strict=True):
                    tokens[name][row] = values
        return Encoded(tokens, targets=targets)

    def _targets(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> npt.NDArray[Any]:
        """Class numbers (rows,), 0s and 1s (rows, classes) or numbers (rows,)."""
        names = self.spec.labels
        if self.problem == "regression":
            numbers = np.array(table["target"].to_numpy(), dtype=np.float32)
            if not np.isfinite(numbers).all():
                raise bad_rows(ids[~np.isfinite(numbers)], "have no number as `target`", param)
            return numbers
        if self.problem == "multi_label_classification":
            lists = table["labels"].to_pylist()
            unknown = [row for row, found in zip(ids, lists, strict=True)
                       if found is None or not set(found) <= set(names)]  # fmt: skip
            if unknown:
                raise bad_rows(unknown, UNKNOWN, param)
            return np.array([[name in found for name in names] for found in lists], np.float32)
        return class_ids(table["label"], names, ids, param)

    def collate(
        self, examples: Sequences, rows: npt.NDArray[np.int64], epoch: int | None = None
    ) -> Batch:
        if epoch is None or not noise.wanted(self.spec):
            return super().collate(examples, rows, epoch)
        tokenizer = self.tokenizer
        hidden = (tokenizer.mask_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)
        of_epoch = noise.noisy(
            examples, rows, self.spec, epoch,
            special=tokenizer.all_special_ids,
            hidden_by=next(token for token in hidden if token is not None),
        )  # fmt: skip
        return super().collate(of_epoch, np.arange(len(rows)), epoch)

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Of logits (rows, classes) in fp32: cross-entropy; the mean over the classes of binary
        cross-entropies, as transformers has it; the squared error of a single number."""
        logits = model(**batch.inputs).logits.float()
        targets, count = batch.targets, len(batch.targets)
        if self.problem == "regression":
            values = logits.squeeze(-1)
            error = functional.mse_loss(values, targets, reduction="sum")
            return Loss(error, count, values.detach(), {"mse": error.detach()})
        if self.problem == "multi_label_classification":
            summed = functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
            right = ((logits.detach() > 0) == targets.bool()).all(dim=-1).float().sum()
            return Loss(
                summed / logits.shape[1], count, logits.detach().sigmoid(), {"accuracy": right}
            )
        return class_loss(logits, targets, self.emphasis_in(model))

    def metrics(self, device: torch.device) -> MetricCollection:
        single = self.problem == "single_label_classification"
        counts = confusion(len(self.spec.labels)) if single else {}
        return MetricCollection({**self._metrics(), **counts}).to(device)

    def _metrics(self) -> dict[str, Metric]:
        classes = len(self.spec.labels)
        if self.problem == "regression":
            return {
                "mse": MeanSquaredError(),
                "pearson": PearsonCorrCoef(),
                "spearman": SpearmanCorrCoef(),
            }
        if self.problem == "multi_label_classification":
            return {
                "accuracy": MultilabelExactMatch(classes),
                "f1_micro": MultilabelF1Score(classes, average="micro"),
                "f1_macro": MultilabelF1Score(classes, average="macro"),
            }
        return {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "f1_macro": MulticlassF1Score(classes, average="macro"),
        }

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        targets = batch.targets
        if self.problem == "multi_label_classification":
            targets = targets.long()
        metrics.update(loss.outputs, targets)

    def tally(self, metrics: MetricCollection) -> dict[str, Any]:
        if self.problem != "multi_label_classification":
            return super().tally(metrics)
        counts: Any = metrics["f1_macro"]
        return {"by_label": torch.stack([counts.tp, counts.fp, counts.fn], dim=1).tolist()}

    def told(self, loss: Loss, batch: Batch) -> list[Any]:
        """A label, a list of labels, or a number."""
        if self.problem == "single_label_classification":
            return class_names(loss, self.spec.labels)
        if self.problem == "regression":
            return list(loss.outputs.tolist())
        return [
            [name for name, chance in zip(self.spec.labels, row, strict=True) if chance > 0.5]
            for row in loss.outputs.tolist()
        ]


TASK = TextClassification
