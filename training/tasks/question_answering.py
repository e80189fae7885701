"""Extractive question answering: the span of the context that answers, or that none does.

A context longer than the model takes is cut into windows that overlap. In a window that does not
hold the whole answer, and for a question without one, the first token is what is to be pointed at.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.nn import functional
from torchmetrics import MeanMetric, MetricCollection
from transformers import AutoModelForQuestionAnswering, PreTrainedModel

from core.errors import BadData
from training import pretrained
from training.sequences import Encoded, Sequences, bad_rows
from training.tasks.base import Batch, Loss
from training.tasks.text import TextTask

OVERLAP = 3
"""Windows share a third of their length."""
LONGEST_ANSWER = 30
"""Tokens of an answer that is looked for, as in SQuAD's evaluations."""
START, END = 1, 2
"""Bits of a token's label."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

Offsets = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Question:
    """What a prediction is compared with."""

    context: str
    answers: list[str]
    """None where there is no answer."""
    offsets: list[Offsets]
    """By window: each token's (start, end) in the context; (-1, -1) where it is not of it."""


class QuestionAnswering(TextTask):
    model_class = AutoModelForQuestionAnswering
    metric_names = ("exact_match", "f1")

    always_answered: bool = False
    """Whether every question of the training file has an answer, as in SQuAD 1: what is then told
    is the best answer, however likely it seems that there is none."""

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        model = super().load(folder, exact=exact)
        pretrained.require_offsets(self.tokenizer)
        return model

    def read(self, path: Path, param: str, between_chunks: Callable[[], None]) -> Sequences:
        if param == "training_file":
            with pa.memory_map(str(path)) as source:
                answers = pa.ipc.open_file(source).read_all()["answers"]
                self.always_answered = pc.min(pc.list_value_length(answers)).as_py() != 0
        return super().read(path, param, between_chunks)

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> Encoded:
        rows = table.to_pylist()
        limit = self.max_length
        asked = self.tokenizer([row["question"] for row in rows], add_special_tokens=False)
        room = limit and limit - self.tokenizer.num_special_tokens_to_add(pair=True)
        if room is not None:
            # Each window needs as many of the context's tokens as two neighbours share, and one.
            least = (limit or 0) // OVERLAP + 1
            long = [
                number
                for number, tokens in zip(ids, asked["input_ids"], strict=True)
                if len(tokens) + least > room
            ]
            if long:
                raise bad_rows(long, "have a question that leaves no room for its context", param)
        encoded = self.tokenizer(
            [row["question"] for row in rows],
            [row["context"] for row in rows],
            truncation="only_second" if limit else False,
            max_length=limit,
            stride=limit // OVERLAP if limit else 0,
            return_overflowing_tokens=limit is not None,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=self.takes_segments,
        )
        owners = list(encoded.get("overflow_to_sample_mapping", range(len(rows))))
        offsets: list[list[Offsets]] = [[] for _ in rows]
        labels = []
        for window, row in enumerate(owners):
            inside = [side == 1 for side in encoded.sequence_ids(window)]
            places = np.array(encoded["offset_mapping"][window], dtype=np.int32)
            places[~np.array(inside)] = -1
            offsets[row].append(places)
            labels.append(_labels(places, rows[row]["answers"]))
        self._require_found(rows, owners, labels, ids, param)
        tokens = {"input_ids": encoded["input_ids"], "labels": labels}
        if self.takes_segments:
            tokens["token_type_ids"] = encoded["token_type_ids"]
        return Encoded(
            tokens,
            windows=[len(windows) for windows in offsets],
            references=[
                Question(row["context"], [a["text"] for a in row["answers"]], windows)
                for row, windows in zip(rows, offsets, strict=True)
            ],
        )

    def pack(self, reference: Question) -> Any:
        return [
            reference.context, reference.answers, [window.tolist() for window in reference.offsets]
        ]  # fmt: skip

    def unpack(self, packed: Any) -> Question:
        context, answers, windows = packed
        return Question(context, answers, [np.array(one, dtype=np.int32) for one in windows])

    def _require_found(
        self,
        rows: list[dict[str, Any]],
        owners: list[int],
        labels: list[list[int]],
        ids: npt.NDArray[np.int64],
        param: str,
    ) -> None:
        """An answer that no window holds whole would teach that there is none."""
        found = {row for row, label in zip(owners, labels, strict=True) if not label[0]}
        lost = [ids[n] for n, row in enumerate(rows) if row["answers"] and n not in found]
        if len(lost) == len(rows):
            raise BadData(
                f"No answer fits into a window of {self.max_length} tokens.",
                param=param,
                hint="Choose a larger `max_length`.",
            )
        if lost:
            self.log(f"{len(lost)} answers of {param} fit into no window, first of row {lost[0]}.")

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """The mean of two cross-entropies over a window's tokens, in fp32: where the answer starts
        and where it ends; summed over windows. `outputs` are both logits, (windows, tokens, 2)."""
        output = model(**batch.inputs)
        logits = torch.stack([output.start_logits, output.end_logits], dim=-1).float()
        hidden = batch.inputs["attention_mask"] == 0
        logits = logits.masked_fill(hidden[:, :, None], torch.finfo(torch.float32).min)
        starts, ends = ((batch.targets > 0) & (batch.targets & bit > 0) for bit in (START, END))
        wanted = torch.stack([starts.int().argmax(dim=1), ends.int().argmax(dim=1)])
        summed = functional.cross_entropy(logits[..., 0], wanted[0], reduction="sum")
        summed = summed + functional.cross_entropy(logits[..., 1], wanted[1], reduction="sum")
        right = (wanted == logits.detach().argmax(dim=1).T).all(dim=0).float().sum()
        return Loss(summed / 2, len(logits), logits.detach(), {"accuracy": right})

    def metrics(self, device: torch.device) -> MetricCollection:
        scores = MetricCollection({"exact_match": MeanMetric(), "f1": MeanMetric()})
        return scores.to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        for question, predicted in zip(batch.references, self.told(loss, batch), strict=True):
            exact, overlap = score(predicted, question.answers)
            metrics["exact_match"].update(exact)
            metrics["f1"].update(overlap)

    def told(self, loss: Loss, batch: Batch) -> list[str]:
        """Each question's answer; empty where there is none."""
        logits = loss.outputs.cpu().numpy()
        ends = np.cumsum([len(question.offsets) for question in batch.references])
        return [
            answer(question, windows, always=self.always_answered)
            for question, windows in zip(batch.references, np.split(logits, ends[:-1]), strict=True)
        ]


def _labels(offsets: Offsets, answers: list[dict[str, Any]]) -> list[int]:
    """Bits of START and END at the tokens that hold the first answer; all in all, one of each."""
    labels = [0] * len(offsets)
    if answers:
        start, end = answers[0]["start"], answers[0]["start"] + len(answers[0]["text"])
        begins, finishes = offsets[:, 0], offsets[:, 1]
        first = np.flatnonzero((begins >= 0) & (begins <= start) & (start < finishes))
        last = np.flatnonzero((begins >= 0) & (begins < end) & (end <= finishes))
        if len(first) and len(last):
            labels[first[0]] |= START
            labels[last[-1]] |= END
            return labels
    labels[0] = START | END
    return labels


def answer(question: Question, logits: npt.NDArray[np.float32], *, always: bool = False) -> str:
    """The text of the best span over all windows; empty, unless there is `always` one, where
    pointing at the first token of a window, in the window that is least for it, is rated as
    high."""
    nothing = -np.inf if always else min(float(window[0].sum()) for window in logits)
    best, text = nothing, ""
    for offsets, window in zip(question.offsets, logits, strict=True):
        inside = np.flatnonzero(offsets[:, 0] >= 0)
        if not len(inside):
            continue
        low, high = int(inside[0]), int(inside[-1]) + 1
        scores = window[low:high, 0][:, None] + window[low:high, 1][None]
        # Not before its start, and not too long.
        allowed = np.triu(np.ones_like(scores, dtype=bool)) & ~np.triu(
            np.ones_like(scores, dtype=bool), LONGEST_ANSWER
        )
        scores = np.where(allowed, scores, -np.inf)
        start, end = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[start, end] > best:
            best = float(scores[start, end])
            text = question.context[offsets[low + start, 0] : offsets[low + end, 1]]
    return text


def score(predicted: str, answers: list[str]) -> tuple[float, float]:
    """(exact match, F1 over words) against the nearest answer, as SQuAD's own evaluation has it:
    without case, punctuation and articles. 0 to 1."""
    ours = normal(predicted)
    pairs = [_score(ours, normal(true)) for true in answers or [""]]
    return max(exact for exact, _ in pairs), max(overlap for _, overlap in pairs)


def _score(ours: str, theirs: str) -> tuple[float, float]:
    exact = float(ours == theirs)
    if not ours or not theirs:
        return exact, exact
    mine, true = ours.split(), theirs.split()
    shared = sum((Counter(mine) & Counter(true)).values())
    return exact, 2 * shared / (len(mine) + len(true))


def normal(text: str) -> str:
    """A text as SQuAD compares it."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


TASK = QuestionAnswering
