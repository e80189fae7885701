"""Sentence embeddings: texts that belong together come to lie near each other.

By the shape of the data:

- pairs and triplets: each anchor is to find its positive among the positives and negatives of all
  rows of the optimizer step (Henderson et al. 2017, section 4.4: in-batch negatives);
- scored pairs: the cosine is to be the score (squared error);
- judged pairs: what holds between two texts is told from u, v and |u - v| by a linear head, which
  is left behind (Reimers and Gurevych 2019, section 3).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchmetrics import MetricCollection, PearsonCorrCoef, SpearmanCorrCoef
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from models.spec import ResolvedSpec
from training import embedding, tail
from training.failures import ModelUnavailable
from training.labels import (
    CLASS_METRICS,
    class_ids,
    class_loss,
    class_metrics,
    class_names,
    set_labels,
)
from training.retrieval import RetrievalScores
from training.sequences import Encoded, Sequences
from training.tasks.base import Batch, Log, Loss
from training.tasks.text import TextTask

Problem = Literal["pairs", "scores", "judgements"]

PROBLEMS: dict[str, Problem] = {
    "anchor,positive,negative": "pairs",
    "sentence1,sentence2,score": "scores",
    "premise,hypothesis,label": "judgements",
}
METRICS: dict[Problem, tuple[str, ...]] = {
    "pairs": ("accuracy", "mrr"),
    "scores": ("spearman", "pearson"),
    "judgements": CLASS_METRICS,
}
SCALE = 20.0
"""What cosines are multiplied by before the softmax: a temperature of 0.05."""
JUDGE = "judge"
JUDGE_WEIGHTS = f"{JUDGE}.safetensors"


class FeatureExtraction(TextTask):
    model_class = AutoModel

    def __init__(self, spec: ResolvedSpec, log: Log) -> None:
        super().__init__(spec, log)
        self.problem = PROBLEMS[spec.shape or "anchor,positive,negative"]
        self.metric_names = METRICS[self.problem]
        self.joins_rows = self.problem == "pairs"

    @classmethod
    def model_types(cls) -> set[str]:
        """Those that read text alone."""
        readers = (AutoModelForMaskedLM, AutoModelForCausalLM)
        types = {config.model_type for auto in readers for config in auto._model_mapping}
        writers = {config.model_type for config in AutoModelForSeq2SeqLM._model_mapping}
        return (types & super().model_types()) - writers

    @property
    def pads_left(self) -> bool:  # type: ignore[override]
        return self.tokenizer.padding_side == "left"

    def configure(self, config: PreTrainedConfig) -> bool:
        self.same_labels = self.problem == "judgements" and set_labels(config, self.spec.labels)
        return True

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        model = super().load(folder, exact=exact)
        pooling = embedding.pooling_of(folder)
        if pooling is None:
            raise ModelUnavailable(
                "The model makes its vectors in a way that is not known here.",
                param="model",
                hint="Known are the mean of the tokens, the first token, and the last.",
            )
        self.pooling: embedding.Pooling = pooling
        if modules := embedding.left_out(folder):
            self.log(
                f"The base model made its vectors by {', '.join(modules)} as well. That is left "
                "out, here and in the result."
            )
        known = [n for n in (self.max_length, embedding.longest_of(folder)) if n is not None]
        self.max_length = min(known, default=None)
        if self.problem == "judgements":
            self._add_judge(model, folder, exact=exact)
        return model

    def _add_judge(self, model: PreTrainedModel, folder: Path, *, exact: bool) -> None:
        torch.manual_seed(self.spec.seed)
        judge = nn.Linear(3 * model.config.hidden_size, len(self.spec.labels))
        model.add_module(JUDGE, judge)
        weights = folder / JUDGE_WEIGHTS
        if exact or (weights.is_file() and self.same_labels):
            judge.load_state_dict(load_file(weights))
        else:
            self.drawn |= {f"{JUDGE}.{name}" for name, _ in judge.named_parameters()}

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> Encoded:
        """A row is its anchor, its positive and its negatives, in this order."""
        rows = [
            [row["anchor"], row["positive"], *row["negatives"]]
            for row in table.select(["anchor", "positive", "negatives"]).to_pylist()
        ]
        encoded = self.tokenizer(
            [text for row in rows for text in row],
            truncation=self.max_length is not None,
            max_length=self.max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        targets: npt.NDArray[Any] = np.zeros(len(rows))
        if self.problem == "scores":
            targets = np.array(table["score"].to_numpy(), dtype=np.float32)
        elif self.problem == "judgements":
            targets = class_ids(table["label"], self.spec.labels, ids, param)
        return Encoded(
            {"input_ids": encoded["input_ids"]},
            windows=[len(row) for row in rows],
            targets=targets,
            references=[[_key(text) for text in row] for row in rows],
        )

    def _tell_of_cuts(self, examples: Sequences, param: str) -> None:
        lengths = np.diff(examples.starts)
        if self.max_length and (full := int((lengths >= self.max_length).sum())):
            self.log(
                f"{full} of the {len(lengths)} texts of {param} fill all {self.max_length} tokens "
                "that a text may have. What is longer is cut off."
            )

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Summed over rows. `outputs` are what `update` gives to the metrics."""
        vectors = self._vectors(model, batch)
        if self.problem == "pairs":
            return self._pairs(functional.normalize(vectors), batch)
        left, right = vectors[0::2], vectors[1::2]
        if self.problem == "judgements":
            features = torch.cat([left, right, (left - right).abs()], dim=1)
            return class_loss(getattr(model, JUDGE)(features), batch.targets)
        cosines = functional.cosine_similarity(left, right)
        error = functional.mse_loss(cosines, batch.targets, reduction="sum")
        return Loss(error, len(cosines), cosines.detach(), {"mse": error.detach()})

    def _pairs(self, vectors: torch.Tensor, batch: Batch) -> Loss:
        """Cross-entropy over the candidates. One that is the anchor's own text, or its positive
        once more, is no negative and is left out."""
        starts = np.cumsum([0, *(len(keys) for keys in batch.references)])[:-1]
        keys = np.array([key for row in batch.references for key in row])
        negative = np.ones(len(keys), dtype=bool)
        negative[[*starts, *(starts + 1)]] = False
        candidates = np.concatenate([starts + 1, np.flatnonzero(negative)])
        same = (keys[candidates] == keys[starts][:, None]) | (
            keys[candidates] == keys[starts + 1][:, None]
        )
        rows = np.arange(len(starts))
        same[rows, rows] = False
        scores = SCALE * vectors[starts] @ vectors[candidates].T
        scores = scores.masked_fill(torch.from_numpy(same).to(scores.device), -torch.inf)
        own = torch.from_numpy(rows).to(scores.device)
        right = (scores.detach().argmax(dim=1) == own).float().sum()
        kept = vectors.detach()
        return Loss(
            sum=functional.cross_entropy(scores, own, reduction="sum"),
            count=len(rows),
            outputs=(kept[starts], kept[starts + 1], kept[np.flatnonzero(negative)]),
            train_sums={"accuracy": right},
        )

    def _vectors(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """(texts, width), fp32. Of a step whose rows belong together, only some are held with what
        a gradient needs: the others are computed again when it is (Gao et al. 2021, GradCache)."""
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        at_once = self.rows_at_once or len(batch.references)
        if not self.joins_rows or at_once >= len(batch.references):
            return self._embed(model, ids, mask)
        sizes = [len(keys) for keys in batch.references]
        texts = [sum(sizes[i : i + at_once]) for i in range(0, len(sizes), at_once)]
        parts = []
        for part_ids, part_mask in zip(ids.split(texts), mask.split(texts), strict=True):
            if torch.is_grad_enabled():
                vectors = checkpoint(self._embed, model, part_ids, part_mask, use_reentrant=False)
            else:
                vectors = self._embed(model, part_ids, part_mask)
            parts.append(vectors)
        return torch.cat(parts)

    def _embed(self, model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with tail.asking(model, embedding.read(mask, self.pooling)):
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return embedding.pool(states, mask, self.pooling)

    def metrics(self, device: torch.device) -> MetricCollection:
        if self.problem == "pairs":
            return MetricCollection({"retrieval": RetrievalScores()}).to(device)
        if self.problem == "judgements":
            return class_metrics(len(self.spec.labels)).to(device)
        both = {"spearman": SpearmanCorrCoef(), "pearson": PearsonCorrCoef()}
        return MetricCollection({**both}).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        if self.problem == "pairs":
            metrics.update(*loss.outputs)
        else:
            metrics.update(loss.outputs, batch.targets)

    def told(self, loss: Loss, batch: Batch) -> list[Any]:
        """What holds between two texts, or their cosine; of an anchor, the cosines with its
        positive and with its negatives."""
        if self.problem == "judgements":
            return class_names(loss, self.spec.labels)
        if self.problem == "scores":
            return list(loss.outputs.tolist())
        anchors, positives, negatives = loss.outputs
        sizes = [len(keys) - 2 for keys in batch.references]
        return [
            {"positive": float(anchor @ positive), "negatives": (others @ anchor).tolist()}
            for anchor, positive, others in zip(
                anchors, positives, negatives.split(sizes), strict=True
            )
        ]

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        if self.problem == "judgements":
            # Not in model.safetensors, which is to hold the plain model and nothing else.
            judge: nn.Module = getattr(model, JUDGE)
            save_file(judge.state_dict(), folder / JUDGE_WEIGHTS)
            delattr(model, JUDGE)
            super().save(model, folder)
            model.add_module(JUDGE, judge)
        else:
            super().save(model, folder)
        embedding.write(folder, self.pooling, model.config.hidden_size, self.max_length)


def _key(text: str) -> int:
    """What tells texts apart: 63 bits of their hash."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


TASK = FeatureExtraction
