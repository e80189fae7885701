"""Causal language modelling: chats and instructions, prompts with completions, plain texts.

Learnt is what the model is to say: of a chat the assistant's turns that count, of a prompt with its
completion the latter, of a plain text all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn import functional
from torchmetrics import MetricCollection
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.errors import BadData
from ingest.chat_template import CLOCK, PLAIN_TEMPLATE, Span, Unrenderable, today
from training import cross_entropy, pretrained
from training.chat import render
from training.metrics import TokenScores
from training.sequences import IGNORED, Encoded, Sequences, bad_rows
from training.tasks.base import Batch, Loss
from training.tasks.text import TextTask

ACCURACY = "mean_token_accuracy"
SHOWN_TOKENS = 64
"""Of an answer that is written out for people to look at."""


class TextGeneration(TextTask):
    model_class = AutoModelForCausalLM
    metric_names = ("perplexity", ACCURACY)
    plain_head: bool
    """Whether the logits are one matrix's work, so that the loss can be taken in chunks."""
    day: str
    """What templates that write the date take for today."""

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        model = super().load(folder, exact=exact)
        pretrained.require_offsets(self.tokenizer)
        if self.tokenizer.chat_template is None:
            self.tokenizer.chat_template = PLAIN_TEMPLATE
        self.plain_head = cross_entropy.has_plain_head(model)
        # Specs of earlier releases do not say.
        self.day = self.spec.day or today()
        return model

    def day_written(self) -> str | None:
        return self.day if CLOCK in str(self.tokenizer.chat_template) else None

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> Encoded:
        encoded = []
        for number, row in zip(ids, table.to_pylist(), strict=True):
            try:
                encoded += [self._row(answer) for answer in self.answers(row)]
            except Unrenderable as error:
                raise BadData(
                    f"Row {number} cannot be made a text of: {error}.",
                    param=param,
                    details=[{"row": int(number)}],
                ) from error
        tokens, labels = ([row[side] for row in encoded] for side in (0, 1))
        return Encoded({"input_ids": tokens, "labels": labels})

    def require_targets(self, examples: Sequences, param: str) -> None:
        """Raises BadData for rows with a sequence of which nothing is learnt: a chat whose answers
        were all cut off is not what its author meant, nor is an answer preferred to nothing."""
        known = examples.tokens["labels"] != IGNORED
        lengths = np.diff(examples.starts)
        # The first token is not predicted from anything.
        known[examples.starts[:-1][lengths > 0]] = False
        silent = examples.counted(known) == 0
        if not silent.any():
            return
        rows = np.unique(np.repeat(examples.ids, np.diff(examples.first))[silent])
        if self.max_length is None or lengths[silent].min() < self.max_length:
            raise bad_rows(rows, "hold nothing to learn", param)
        raise bad_rows(
            rows,
            f"hold nothing to learn within their first {self.max_length} tokens",
            param,
            "Choose a larger `max_length`, if the model takes more, or shorten what comes before "
            "the answers.",
        )

    def answers(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """What a row becomes sequences of."""
        return [row]

    def _row(self, row: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Tokens, and beside each what is learnt at its place."""
        if row["messages"] is not None:
            text, spans = render(self.tokenizer, row["messages"], row["tools"], self.day)
            # The template has written the special tokens.
            return self._tokens(text, spans, special=False)
        if row["text"] is not None:
            return self._tokens(row["text"], [(0, len(row["text"]))], special=True)
        prompt = row["prompt"] or ""
        text = prompt + row["completion"]
        return self._tokens(text, [(len(prompt), len(text))], special=True)

    def _tokens(
        self, text: str, spans: Sequence[Span], *, special: bool
    ) -> tuple[list[int], list[int]]:
        """A token is learnt if it ends within a span: one that a boundary divides belongs to what
        comes after. `special` adds what the tokenizer adds, and the end of text."""
        encoded = self.tokenizer(
            text,
            add_special_tokens=special,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        tokens: list[int] = encoded["input_ids"]
        labels = [
            IGNORED if added or not any(start < end <= last for start, last in spans) else token
            for token, (_, end), added in zip(
                tokens, encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True
            )
        ]
        if special and (end_of_text := self.tokenizer.eos_token_id) is not None:
            if not tokens or tokens[-1] != end_of_text:
                tokens, labels = [*tokens, end_of_text], [*labels, end_of_text]
            else:
                labels[-1] = end_of_text
        return tokens[: self.max_length], labels[: self.max_length]

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Cross-entropy of logits (rows, tokens, vocabulary): each place tells the token after."""
        known = functional.pad(batch.targets[:, 1:] != IGNORED, (0, 1))
        targets = batch.targets[:, 1:][known[:, :-1]]
        of = cross_entropy.of_head if self.plain_head else cross_entropy.of_logits
        return of(model, {**batch.inputs, "use_cache": False}, known, targets, ACCURACY)

    def metrics(self, device: torch.device) -> MetricCollection:
        return MetricCollection({"tokens": TokenScores(ACCURACY)}).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        metrics.update(loss.outputs)

    def tell(
        self, model: Any, examples: Sequences, rows: npt.NDArray[np.int64]
    ) -> list[dict[str, str]]:
        """How the model goes on, greedily, before the first thing to be learnt, beside that; of a
        text that is learnt from its beginning, after its first half."""
        told = []
        for row in rows:
            here = slice(examples.starts[row], examples.starts[row + 1])
            tokens = torch.from_numpy(examples.tokens["input_ids"][here].astype(np.int64))
            learnt = np.flatnonzero(examples.tokens["labels"][here] != IGNORED)
            begin, end = int(learnt[0]), len(tokens)
            if begin <= 1:
                begin = max(1, end // 2)
            elif len(gaps := np.flatnonzero(np.diff(learnt) > 1)):
                end = int(learnt[gaps[0]]) + 1
            wanted = tokens[begin:end][:SHOWN_TOKENS]
            prompt = tokens[None, :begin].to(model.device)
            written = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=len(wanted),
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )[0, begin:]
            names = ("prompt", "expected", "predicted")
            texts = self.tokenizer.batch_decode([tokens[:begin], wanted, written.cpu()])
            told.append(dict(zip(names, texts, strict=True)))
        return told


TASK = TextGeneration
