"""Preference: of two answers to a prompt, the one that is wanted becomes likelier (DPO).

The loss is -log σ(r(chosen) - r(rejected)) with r = β · (log π - log π_ref), where π_ref is the
base model (Rafailov et al. 2023, equation 7).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from peft import PeftModel
from torch.nn import functional
from torchmetrics import MeanMetric, MetricCollection
from transformers import PreTrainedModel

from training import pretrained
from training.chat import Message
from training.sequences import IGNORED, Encoded, bad_rows
from training.tasks.base import Batch, Loss
from training.tasks.text_generation import TextGeneration


class Preference(TextGeneration):
    """Each row is two sequences: the prompt with the answer chosen, and with the one rejected."""

    metric_names = ("accuracy", "margin")

    reference: PreTrainedModel | None = None
    """The base model; None under LoRA, where it is the model with its adapter off."""

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        model = super().load(folder, exact=exact)
        if self.spec.tuning != "lora":
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
        unpaired = [
            number
            for number, chosen, rejected in zip(
                ids, table["chosen"].to_pylist(), table["rejected"].to_pylist(), strict=True
            )
            if chosen is None or rejected is None
        ]
        if unpaired:
            raise bad_rows(unpaired, "have one answer only, where DPO needs two", param)
        encoded = super().encode(table, ids, param)
        return Encoded(encoded.tokens, windows=[2] * len(table))

    def answers(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The two texts of a row, as `text_generation` encodes them."""
        return [self._answer(row, row[side]) for side in ("chosen", "rejected")]

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

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Summed over rows. `outputs` are (rows, 2): the two rewards, β · (log π - log π_ref)."""
        assert self.spec.beta is not None
        rewards = self.spec.beta * (
            _log_probability(model, batch) - self._reference_log_probability(model, batch)
        )
        rewards = rewards.view(-1, 2)
        margin = rewards[:, 0] - rewards[:, 1]
        right = (margin.detach() > 0).float().sum()
        return Loss(
            sum=-functional.logsigmoid(margin).sum(),
            count=len(margin),
            outputs=rewards.detach(),
            train_sums={"accuracy": right, "margin": margin.detach().sum()},
        )

    def _reference_log_probability(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """What the base model gives, with dropout off."""
        with torch.no_grad():
            if self.reference is not None:
                self.reference.to(model.device)  # type: ignore[arg-type]  # transformers wraps it
                return _log_probability(self.reference, batch)
            assert isinstance(model, PeftModel)
            was_training = model.training
            model.eval()
            try:
                with model.disable_adapter():
                    return _log_probability(model, batch)
            finally:
                model.train(was_training)

    def metrics(self, device: torch.device) -> MetricCollection:
        return MetricCollection({"accuracy": MeanMetric(), "margin": MeanMetric()}).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        margin = loss.outputs[:, 0] - loss.outputs[:, 1]
        metrics["accuracy"].update((margin > 0).float())
        metrics["margin"].update(margin)


def _log_probability(model: Any, batch: Batch) -> torch.Tensor:
    """The log-probability of each sequence's answer: (sequences,), fp32."""
    logits = model(**batch.inputs, use_cache=False).logits[:, :-1]
    targets = batch.targets[:, 1:]
    known = targets != IGNORED
    tokens = -functional.cross_entropy(logits[known].float(), targets[known], reduction="none")
    sums = torch.zeros(len(targets), device=tokens.device)
    return sums.index_add(0, known.nonzero()[:, 0], tokens)


TASK = Preference
