"""Preference: answers that are wanted become likelier than those that are not.

By `preference_loss`, with r = log π - log π_ref of an answer, where π_ref is the base model:

- `dpo`: -log σ(β (r_chosen - r_rejected)) (Rafailov et al. 2023, equation 7);
- `ipo`: (d - 1 / 2β)² with d the difference of r / tokens (Azar et al. 2023, equation 17; its
  authors divide by the tokens, as TRL says too);
- `orpo`: -log p - β log σ(log odds_chosen - log odds_rejected), where p is the geometric mean of an
  answer's token probabilities and the first term is the chosen answer's (Hong et al. 2024,
  equation 6). It has no reference;
- `kto`: 1 - σ(±β (r - z)) of single answers, plus for those wanted, with z ≥ 0 the mean r of
  answers to other rows' prompts (Ethayarajh et al. 2024, equation 8). z is that of the whole
  optimizer step, however it is split.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from peft import PeftModel
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchmetrics import MeanMetric, MetricCollection
from transformers import PreTrainedModel

from ingest.chat_template import Message
from models.spec import ResolvedSpec
from training import pretrained
from training.mode import evaluating
from training.sequences import IGNORED, Encoded, Sequences, bad_rows
from training.tasks.base import Batch, Log, Loss
from training.tasks.text import TextTask
from training.tasks.text_generation import TextGeneration

Losses = tuple[torch.Tensor, torch.Tensor]
"""Each row's loss, and its margin."""


class Preference(TextGeneration):
    """Each row is two sequences: the prompt with the answer chosen, and with the one rejected. With
    KTO it is one.

    `margin` is how far the rewards β r lean to the right side: that of the chosen answer less that
    of the rejected; with KTO the reward, or less the reward of what is not wanted; with ORPO r is
    log p. `accuracy` is the share of rows where they do.
    """

    metric_names = ("accuracy", "margin")

    reference: PreTrainedModel | None = None
    """The base model; None under LoRA, where it is the model with its adapter off."""

    def __init__(self, spec: ResolvedSpec, log: Log) -> None:
        super().__init__(spec, log)
        self.kind = spec.preference_loss or "dpo"
        self.joins_rows = self.kind == "kto"
        self.losses = {"dpo": self._dpo, "ipo": self._ipo, "orpo": self._orpo, "kto": self._kto}

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        model = super().load(folder, exact=exact)
        if self.spec.tuning != "lora" and self.kind != "orpo":
            base = self.base or folder
            reference, _ = pretrained.load_model(
                self.model_class,
                base,
                pretrained.load_config(base),
                seed=self.spec.seed,
                exact=True,
            )
            self.reference = reference.eval().requires_grad_(False)
        return model

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> Encoded:
        chosen, rejected = (
            np.array(table[side].is_valid(), dtype=np.int64) for side in ("chosen", "rejected")
        )
        needed = 1 if self.kind == "kto" else 2
        if (unfit := chosen + rejected != needed).any():
            fault = (
                "one answer only, where two are needed" if needed == 2 else "two answers for KTO"
            )
            raise bad_rows(ids[unfit], f"have {fault}", param)
        encoded = super().encode(table, ids, param)
        if self.kind == "kto":
            return Encoded(encoded.tokens, references=chosen.astype(bool).tolist())
        return Encoded(encoded.tokens, windows=[2] * len(table))

    def answers(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The texts of a row, as `text_generation` encodes them."""
        return [self._answer(row, row[side]) for side in ("chosen", "rejected") if row[side]]

    def _answer(self, row: dict[str, Any], answer: list[Message]) -> dict[str, Any]:
        parts = {"messages": None, "tools": row["tools"], "text": None}
        if row["chat"]:
            # The prompt's own assistant turns are not what is preferred.
            asked = [
                message | {"weight": 0} if message["role"] == "assistant" else message
                for message in row["prompt"]
            ]
            return parts | {"messages": asked + answer}
        prompt = "".join(message["content"] for message in row["prompt"])
        return parts | {"prompt": prompt, "completion": answer[0]["content"]}

    def collate(
        self, examples: Sequences, rows: npt.NDArray[np.int64], epoch: int | None = None
    ) -> Batch:
        """With KTO, each row's prompt comes once more behind them, with the next row's answer."""
        if self.kind != "kto":
            return super().collate(examples, rows, epoch)
        tokens, labels = (
            [examples.tokens[name][examples.starts[row] : examples.starts[row + 1]].tolist()
             for row in rows]
            for name in ("input_ids", "labels")
        )  # fmt: skip
        answers = [next(i for i, label in enumerate(row) if label != IGNORED) for row in labels]
        following = [*range(1, len(rows)), 0]
        both = {
            name: own + [own[row][: answers[row]] + own[other][answers[other] :]
                         for row, other in enumerate(following)]
            for name, own in (("input_ids", tokens), ("labels", labels))
        }  # fmt: skip
        both = {name: [row[: self.max_length] for row in lists] for name, lists in both.items()}
        wanted = [examples.references[row] for row in rows]
        doubled = Sequences.joined(np.tile(rows, 2), [Encoded(both, references=wanted * 2)])
        batch = super().collate(doubled, np.arange(2 * len(rows)), epoch)
        # The second half is there to compare with.
        return replace(batch, references=wanted, tokens=sum(map(len, tokens)))

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Summed over rows. `outputs` are the rows' margins."""
        losses, margins = self.losses[self.kind](model, batch)
        margins = margins.detach()
        right = (margins > 0).float().sum()
        sums = {"accuracy": right, "margin": margins.sum()}
        return Loss(losses.sum(), len(losses), margins, sums)

    def _dpo(self, model: PreTrainedModel, batch: Batch) -> Losses:
        ratio = _log_probability(model, batch) - self._reference_log_probability(model, batch)
        margins = self.beta * (ratio[0::2] - ratio[1::2])
        return -functional.logsigmoid(margins), margins

    def _ipo(self, model: PreTrainedModel, batch: Batch) -> Losses:
        ratio = _log_probability(model, batch) - self._reference_log_probability(model, batch)
        mean = ratio / _answer_tokens(batch)
        return (mean[0::2] - mean[1::2] - 1 / (2 * self.beta)) ** 2, self.beta * (
            ratio[0::2] - ratio[1::2]
        )

    def _orpo(self, model: PreTrainedModel, batch: Batch) -> Losses:
        mean = _log_probability(model, batch) / _answer_tokens(batch)
        log_odds = mean - _log1mexp(mean)
        ratio = functional.logsigmoid(log_odds[0::2] - log_odds[1::2])
        return -mean[0::2] - self.beta * ratio, self.beta * (mean[0::2] - mean[1::2])

    def _kto(self, model: PreTrainedModel, batch: Batch) -> Losses:
        rows = len(batch.references)
        ratio = torch.cat([self._ratio(model, part) for part in self._parts(batch, 0, rows)])
        with torch.no_grad():
            others = [self._ratio(model, part) for part in self._parts(batch, rows, 2 * rows)]
        # A row alone has no other's answer.
        shift = torch.cat(others).mean().clamp(min=0) if rows > 1 else ratio.new_zeros(())
        sign = torch.tensor([1.0 if wanted else -1.0 for wanted in batch.references])
        sign = sign.to(ratio.device)
        return 1 - (sign * self.beta * (ratio - shift)).sigmoid(), sign * self.beta * ratio

    def _parts(self, batch: Batch, start: int, end: int) -> list[Batch]:
        """As many sequences at once as the memory is thought to hold."""
        at_once = self.rows_at_once or end - start
        cuts = [slice(i, min(i + at_once, end)) for i in range(start, end, at_once)]
        return [
            replace(
                batch,
                inputs={name: tensor[cut] for name, tensor in batch.inputs.items()},
                targets=batch.targets[cut],
            )
            for cut in cuts
        ]

    def _ratio(self, model: PreTrainedModel, part: Batch) -> torch.Tensor:
        """log π - log π_ref. What the gradient needs is computed again for it, part by part."""
        reference = self._reference_log_probability(model, part)
        if not torch.is_grad_enabled():
            return _log_probability(model, part) - reference
        found: torch.Tensor = checkpoint(_log_probability, model, part, use_reentrant=False)
        return found - reference

    @property
    def beta(self) -> float:
        assert self.spec.beta is not None
        return self.spec.beta

    def _reference_log_probability(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """What the base model gives, with dropout off."""
        with torch.no_grad():
            if self.reference is not None:
                self.reference.to(model.device)  # type: ignore[arg-type]  # transformers wraps it
                return _log_probability(self.reference, batch)
            assert isinstance(model, PeftModel)
            with evaluating(model), model.disable_adapter():
                return _log_probability(model, batch)

    def metrics(self, device: torch.device) -> MetricCollection:
        return MetricCollection({"accuracy": MeanMetric(), "margin": MeanMetric()}).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        metrics["accuracy"].update((loss.outputs > 0).float())
        metrics["margin"].update(loss.outputs)

    def tell(
        self, model: PreTrainedModel, examples: Sequences, rows: npt.NDArray[np.int64]
    ) -> list[Any]:
        return TextTask.tell(self, model, examples, rows)

    def told(self, loss: Loss, batch: Batch) -> list[float]:
        """The rows' margins."""
        return list(loss.outputs.tolist())


def _log_probability(model: Any, batch: Batch) -> torch.Tensor:
    """The log-probability of each sequence's answer: (sequences,), fp32."""
    logits = model(**batch.inputs, use_cache=False).logits[:, :-1]
    targets = batch.targets[:, 1:]
    known = targets != IGNORED
    tokens = -functional.cross_entropy(logits[known].float(), targets[known], reduction="none")
    sums = torch.zeros(len(targets), device=tokens.device)
    return sums.index_add(0, known.nonzero()[:, 0], tokens)


def _answer_tokens(batch: Batch) -> torch.Tensor:
    return (batch.targets[:, 1:] != IGNORED).sum(dim=1)


def _log1mexp(x: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) of x < 0, without loss of digits near 0 or far from it (Mächler 2012)."""
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


TASK = Preference
