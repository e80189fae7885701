"""Text classification: one label a row, of a text or a pair of texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from core.errors import BadData
from training import pretrained
from training.tasks.base import Batch, Loss, Task

CHUNK_ROWS = 1000
MAX_REPORTED_ROWS = 20
UNBOUNDED = 1_000_000
"""A tokenizer that knows no limit says a number beyond this."""


@dataclass(frozen=True)
class Texts:
    """Encoded rows: row i's tokens are `tokens[starts[i] : starts[i + 1]]`."""

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    segments: npt.NDArray[np.int8] | None
    """Which text of a pair a token is of; None where there are no pairs or the model asks not."""

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        return np.diff(self.starts).astype(np.int32)


class TextClassification(Task[Texts]):
    metric_names = ("accuracy", "f1_macro")

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None
    takes_segments: bool

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        config = pretrained.load_config(folder)
        self.tokenizer = pretrained.load_tokenizer(folder)
        labels = self.spec.labels
        known = [label for _, label in sorted((config.id2label or {}).items())]
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
        config.problem_type = "single_label_classification"
        config.pad_token_id = self.tokenizer.pad_token_id
        model, drawn = pretrained.load_model(
            AutoModelForSequenceClassification, folder, config, seed=self.spec.seed, exact=exact
        )
        if known != labels:
            self._renew_head(model, drawn)
        self.max_length = _longest(self.spec.max_length, model, self.tokenizer)
        # As plain transformers does: segments where the tokenizer gives and the model takes them.
        self.takes_segments = (
            "token_type_ids" in self.tokenizer.model_input_names
            and "token_type_ids" in inspect.signature(model.forward).parameters
        )
        return model

    def _renew_head(self, model: PreTrainedModel, drawn: set[str]) -> None:
        """Draw anew what was loaded of the head: trained for other labels, or for the same in
        another order, it would bring its meanings along wherever its shape happens to fit."""
        body = f"{model.base_model_prefix}."
        head = {
            name: parameter
            for name, parameter in model.named_parameters()
            if not name.startswith(body) and name not in drawn
        }
        if not head:
            return
        self.log("The model's head was trained for other labels: a new one takes its place.")
        torch.manual_seed(self.spec.seed)
        fresh = AutoModelForSequenceClassification.from_config(model.config).state_dict()
        with torch.no_grad():
            for name, parameter in head.items():
                parameter.copy_(fresh[name])

    def read(self, path: Path, param: str, between_chunks: Callable[[], None]) -> Texts:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            ids = np.array(table["id"], dtype=np.int64)
            if not len(ids):
                raise BadData("The file has no rows.", param=param)
            labels = _class_ids(table["label"], self.spec.labels, ids, param)
            chunks = []
            for start in range(0, len(ids), CHUNK_ROWS):
                between_chunks()
                chunks.append(self._encode(table.slice(start, CHUNK_ROWS)))
        lengths, tokens, segments = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
        if not lengths.all():
            raise _bad_rows(ids[lengths == 0], "hold no text that the model can read", param)
        if self.max_length is not None and (full := int((lengths >= self.max_length).sum())):
            self.log(
                f"{full} of the {len(ids)} rows of {param} fill all {self.max_length} tokens that "
                "a row may have. What is longer is cut off."
            )
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return Texts(ids, labels, starts, tokens, segments if segments.any() else None)

    def _encode(self, table: pa.Table) -> tuple[npt.NDArray[Any], ...]:
        """Lengths of these rows, then their tokens and segments end to end."""
        texts = table["text"].to_pylist()
        pairs = table["text_pair"].to_pylist()
        tokens: list[list[int]] = [[]] * len(texts)
        segments: list[list[int]] = [[]] * len(texts)
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
            for position, row in enumerate(rows):
                tokens[row] = encoded["input_ids"][position]
                if self.takes_segments:
                    segments[row] = encoded["token_type_ids"][position]
        return (
            np.array([len(row) for row in tokens], dtype=np.int64),
            np.fromiter(chain.from_iterable(tokens), dtype=np.int32),
            np.fromiter(chain.from_iterable(segments), dtype=np.int8),
        )

    def collate(self, examples: Texts, rows: npt.NDArray[np.int64]) -> Batch:
        """Tensors of shape (rows, longest row), int64. Padding is masked by length, never by
        token id: the padding token may well stand in a text."""
        starts, lengths = examples.starts[rows], examples.lengths[rows]
        places = np.arange(int(lengths.max()))
        if self.tokenizer.padding_side == "left":
            places = places - (len(places) - lengths)[:, None]
        mask = (places >= 0) & (places < lengths[:, None])
        sources = (starts[:, None] + places)[mask]

        def padded(values: npt.NDArray[Any], padding: int) -> torch.Tensor:
            matrix = np.full(mask.shape, padding, dtype=np.int64)
            matrix[mask] = values[sources]
            return torch.from_numpy(matrix)

        inputs = {
            "input_ids": padded(examples.tokens, self.tokenizer.pad_token_id),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        }
        if examples.segments is not None:
            inputs["token_type_ids"] = padded(examples.segments, 0)
        return Batch(inputs, torch.from_numpy(examples.labels[rows]), int(lengths.sum()))

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Cross-entropy of logits (rows, classes) in fp32."""
        logits = model(**batch.inputs).logits.float()
        classes = logits.detach().argmax(dim=-1)
        return Loss(
            sum=functional.cross_entropy(logits, batch.targets, reduction="sum"),
            count=len(batch.targets),
            outputs=classes,
            train_sums={"accuracy": (classes == batch.targets).float().sum()},
        )

    def metrics(self, device: torch.device) -> MetricCollection:
        classes = len(self.spec.labels)
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro"),
                "f1_macro": MulticlassF1Score(classes, average="macro"),
            }
        ).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        metrics.update(loss.outputs, batch.targets)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        model.save_pretrained(folder)
        pretrained.save_tokenizer(self.tokenizer, folder)


TASK = TextClassification


def _longest(
    chosen: int | None, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> int | None:
    """The most tokens a row may have: what was chosen or what the model can take, the smaller."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < UNBOUNDED else []
    if positions := getattr(model.config, "max_position_embeddings", None):
        # RoBERTa and its kin count positions from behind the padding index.
        table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        limits.append(positions if padding is None else positions - padding - 1)
    return min([*limits, *([chosen] if chosen else [])], default=None)


def _class_ids(
    labels: pa.ChunkedArray, names: list[str], ids: npt.NDArray[np.int64], param: str
) -> npt.NDArray[np.int64]:
    """Each row's class: the position of its label among the sorted names."""
    found = pc.index_in(labels, pa.array(names, pa.string()))
    if found.null_count:
        unknown = found.is_null().to_numpy()
        raise _bad_rows(ids[unknown], "have a label that no row of the training file has", param)
    return np.array(found, dtype=np.int64)


def _bad_rows(ids: npt.NDArray[np.int64], fault: str, param: str) -> BadData:
    """An error that names the first rows at fault."""
    first = [int(row) for row in ids[:MAX_REPORTED_ROWS]]
    return BadData(
        f"{len(ids)} rows {fault}, the first at row {first[0]}.",
        param=param,
        hint="Correct or remove these rows and upload the file again.",
        details=[{"row": row} for row in first],
    )
