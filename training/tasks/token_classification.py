"""Token classification: a tag a word. A word's first token carries it; the others are not learnt.

A text longer than the model takes is cut into windows that overlap. Each word is learnt and counted
in one of them, the one that shows more of what is around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from transformers import AutoModelForTokenClassification, PreTrainedConfig, PreTrainedModel

from training import pretrained
from training.entities import EntityScores
from training.labels import set_labels
from training.metrics import confusion
from training.sequences import IGNORED, Encoded, bad_rows
from training.tasks.base import Batch, Loss
from training.tasks.text import TextTask

OVERLAP = 4
"""Windows share a quarter of their length."""


class TokenClassification(TextTask):
    model_class = AutoModelForTokenClassification
    metric_names = ("precision", "recall", "f1", "accuracy")

    def configure(self, config: PreTrainedConfig) -> bool:
        return set_labels(config, self.spec.labels)

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        model = super().load(folder, exact=exact)
        self.tokenizer = pretrained.spaced_words(self.tokenizer, folder)
        pretrained.require_offsets(self.tokenizer)
        return model

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> Encoded:
        numbers = {label: number for number, label in enumerate(self.spec.labels)}
        rows = table["tags"].to_pylist()
        unknown = [
            row for row, tags in zip(ids, rows, strict=True) if not set(tags) <= set(numbers)
        ]
        if unknown:
            raise bad_rows(unknown, "have a tag that no row of the training file has", param)
        limit = self.max_length
        encoded = self.tokenizer(
            table["tokens"].to_pylist(),
            is_split_into_words=True,
            truncation=limit is not None,
            max_length=limit,
            stride=limit // OVERLAP if limit else 0,
            return_overflowing_tokens=limit is not None,
            return_attention_mask=False,
            return_token_type_ids=self.takes_segments,
        )
        owners = list(encoded.get("overflow_to_sample_mapping", range(len(rows))))
        windows: list[list[list[int | None]]] = [[] for _ in rows]
        for sequence, row in enumerate(owners):
            windows[row].append(encoded.word_ids(sequence))
        labels = [
            [IGNORED if word is None else numbers[rows[row][word]] for word in window]
            for row, row_windows in enumerate(windows)
            for window in heads(row_windows)
        ]
        tokens = {"input_ids": encoded["input_ids"], "labels": labels}
        if self.takes_segments:
            tokens["token_type_ids"] = encoded["token_type_ids"]
        return Encoded(tokens, windows=[len(row) for row in windows], references=[
            len(row) for row in windows
        ])  # fmt: skip

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Cross-entropy of logits (windows, tokens, tags) in fp32, over the words."""
        logits = model(**batch.inputs).logits.float()
        known = batch.targets != IGNORED
        tags = logits.detach().argmax(dim=-1)
        return Loss(
            sum=functional.cross_entropy(
                logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum"
            ),
            count=int(known.sum()),
            outputs=tags,
            train_sums={"accuracy": ((tags == batch.targets) & known).float().sum()},
        )

    def metrics(self, device: torch.device) -> MetricCollection:
        accuracy = MulticlassAccuracy(len(self.spec.labels), average="micro", ignore_index=IGNORED)
        counts = confusion(len(self.spec.labels))
        return MetricCollection({"entities": EntityScores(), "accuracy": accuracy, **counts}).to(
            device
        )

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        for name, metric in metrics.items():
            if name != "entities":
                metric.update(loss.outputs, batch.targets)
        for predicted, true in self._tags(loss, batch):
            metrics["entities"].update(predicted, true)

    def told(self, loss: Loss, batch: Batch) -> list[list[str]]:
        return [predicted for predicted, _ in self._tags(loss, batch)]

    def _tags(self, loss: Loss, batch: Batch) -> Iterator[tuple[list[str], list[str]]]:
        """What was told of each text's words, and what is true. They stand in its windows in order,
        each once."""
        names = np.array(self.spec.labels)
        predicted, true = loss.outputs.cpu().numpy(), batch.targets.cpu().numpy()
        start = 0
        for windows in batch.references:
            here = slice(start, start + windows)
            known = true[here] != IGNORED
            yield names[predicted[here][known]].tolist(), names[true[here][known]].tolist()
            start += windows


def heads(windows: list[list[int | None]]) -> list[list[int | None]]:
    """Word numbers of a text's windows, left only where a word is to be learnt: at its first token,
    and in one window. Words that two windows share belong to the first up to their middle."""
    kept: list[list[int | None]] = []
    begin = 0
    for place, window in enumerate(windows):
        end = 1 + max((word for word in window if word is not None), default=-1)
        if place + 1 < len(windows):
            shared = [word for word in windows[place + 1] if word is not None]
            # A word that the cut divides begins in this window alone.
            end = max(begin, (end + min(shared, default=end) + 1) // 2)
        before: Any = None
        row: list[int | None] = []
        for word in window:
            first = word is not None and word != before
            row.append(word if first and begin <= word < end else None)  # type: ignore[operator]
            before = word
        kept.append(row)
        begin = end
    return kept


TASK = TokenClassification
