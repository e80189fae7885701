"""Masked language modelling: an encoder goes on learning to fill in hidden words.

Of 100 tokens 15 are to be told: 80 % of those are hidden, 10 % stand replaced by another, 10 % as
they are (BERT, Devlin et al. 2018, section 3.1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torchmetrics import MetricCollection
from transformers import AutoModelForMaskedLM, PreTrainedModel

from training import cross_entropy
from training.failures import ModelUnavailable
from training.metrics import TokenScores
from training.sequences import IGNORED, Encoded, Sequences
from training.tasks.base import Batch, Loss
from training.tasks.text import TextTask

CHOSEN = 0.15
HIDDEN, REPLACED = 0.8, 0.1


class FillMask(TextTask):
    model_class = AutoModelForMaskedLM
    metric_names = ("perplexity", "accuracy")

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        model = super().load(folder, exact=exact)
        if self.tokenizer.mask_token_id is None:
            raise ModelUnavailable(
                "The model cannot be trained to fill masks: its tokenizer has no mask token.",
                param="model",
                hint="Choose an encoder such as BERT, or the task `text-generation`.",
            )
        self.special = np.array(self.tokenizer.all_special_ids)
        return model

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> Encoded:
        encoded = self.tokenizer(
            table["text"].to_pylist(),
            truncation=self.max_length is not None,
            max_length=self.max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        # The texts themselves are what is to be told; `collate` hides parts of them.
        return Encoded({"input_ids": encoded["input_ids"], "labels": encoded["input_ids"]})

    def learnable(self, examples: Sequences) -> npt.NDArray[np.bool_]:
        return ~np.isin(examples.tokens["input_ids"], self.special)

    def collate(
        self, examples: Sequences, rows: npt.NDArray[np.int64], epoch: int | None = None
    ) -> Batch:
        """Mask what the row's own generator draws: another choice each epoch, and in evaluation
        always the same one."""
        batch = super().collate(examples, rows, epoch)
        for place, row in enumerate(rows):
            length = int(examples.lengths[row])
            tokens = batch.inputs["input_ids"][place, :length].numpy()
            targets = batch.targets[place, :length].numpy()
            self._mask(tokens, targets, [self.spec.seed, 0 if epoch is None else epoch + 1,
                                         int(examples.ids[row])])  # fmt: skip
        return batch

    def _mask(
        self, tokens: npt.NDArray[np.int64], targets: npt.NDArray[np.int64], key: list[int]
    ) -> None:
        """Hide, in place, some of a row's tokens; at least one, unless all are special."""
        generator = np.random.default_rng(key)
        free = ~np.isin(tokens, self.special)
        chance = np.where(free, generator.random(len(tokens)), 1.0)
        chosen = free & (chance < max(CHOSEN, chance.min() + 1e-12))
        kind = generator.random(len(tokens))
        others = generator.integers(0, len(self.tokenizer), len(tokens))
        targets[~chosen] = IGNORED
        tokens[chosen & (kind < HIDDEN)] = self.tokenizer.mask_token_id
        swapped = chosen & (kind >= HIDDEN) & (kind < HIDDEN + REPLACED)
        tokens[swapped] = others[swapped]

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Cross-entropy of logits (rows, tokens, vocabulary) over the chosen tokens."""
        known = batch.targets != IGNORED
        return cross_entropy.of_logits(model, batch.inputs, known, batch.targets[known], "accuracy")

    def metrics(self, device: torch.device) -> MetricCollection:
        return MetricCollection({"tokens": TokenScores("accuracy")}).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        metrics.update(loss.outputs)

    def tell(
        self, model: PreTrainedModel, examples: Sequences, rows: npt.NDArray[np.int64]
    ) -> list[dict[str, Any]]:
        """The text as the model saw it, and what it put where a token was to be told."""
        batch = self.collate(examples, rows).to(model.device)
        best = model(**batch.inputs).logits.argmax(dim=-1)
        told = []
        for row, targets in enumerate(batch.targets):
            known, seen = targets != IGNORED, batch.inputs["attention_mask"][row].bool()
            wanted, found = (
                self.tokenizer.convert_ids_to_tokens(ids[known].tolist())
                for ids in (targets, best[row])
            )
            text = self.tokenizer.decode(batch.inputs["input_ids"][row][seen])
            told.append({"text": text, "expected": wanted, "predicted": found})
        return told


TASK = FillMask
