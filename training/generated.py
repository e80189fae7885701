"""How near a generated text is to the one that was wanted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.helpers import extract_all_char_ngrams
from torchmetrics import Metric

_WORD = re.compile(r"\w+")
CHRF_ORDER, CHRF_BETA = 6, 2


class Bleu(Metric):
    """Corpus BLEU, 0 to 100, with sacrebleu's tokenizer 13a and its smoothing (`exp`).

    The counts of n-grams add up over the texts, and the score is made of the sums.
    """

    full_state_update = False
    sums: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.counter = BLEU(effective_order=True)
        self.add_state("sums", torch.zeros(10, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, texts: Sequence[str], wanted: Sequence[str]) -> None:
        for text, true in zip(texts, wanted, strict=True):
            found = self.counter.sentence_score(text, [true])
            row = [*found.counts, *found.totals, found.sys_len, found.ref_len]
            self.sums += torch.tensor(row, device=self.sums.device)

    def compute(self) -> torch.Tensor:
        sums = self.sums.tolist()
        score = BLEU.compute_bleu(sums[:4], sums[4:8], sums[8], sums[9], smooth_method="exp")
        return torch.tensor(score.score)


class Chrf(Metric):
    """Corpus chrF2, 0 to 1, as sacrebleu has it (Popović 2015): the F-score, recall weighed double,
    of precision and recall of runs of 1 to 6 characters without blanks, each a mean over the
    lengths that there are."""

    full_state_update = False
    sums: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(CHRF_ORDER, 3, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, texts: Sequence[str], wanted: Sequence[str]) -> None:
        for pair in zip(texts, wanted, strict=True):
            runs = zip(*(extract_all_char_ngrams(side, CHRF_ORDER) for side in pair), strict=True)
            counts = [
                (ours.total() if theirs else 0, theirs.total(), (ours & theirs).total())
                for ours, theirs in runs
            ]
            self.sums += torch.tensor(counts, device=self.sums.device)

    def compute(self) -> torch.Tensor:
        there = [
            (ours, theirs, both) for ours, theirs, both in self.sums.tolist() if ours and theirs
        ]
        precision = sum(both / ours for ours, _, both in there)
        recall = sum(both / theirs for _, theirs, both in there)
        if not precision + recall:
            return torch.tensor(0.0)
        weight = CHRF_BETA**2
        score = (1 + weight) * precision * recall / (weight * precision + recall)
        return torch.tensor(score / len(there))


class Rouge(Metric):
    """ROUGE-1, -2 and -L (Lin 2004): the mean F1 over texts of shared words, pairs of words, and of
    the longest common subsequence; 0 to 1. Words are lower-case runs of letters and digits."""

    full_state_update = False
    sums: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, texts: Sequence[str], wanted: Sequence[str]) -> None:
        for text, true in zip(texts, wanted, strict=True):
            self.sums += torch.tensor([*rouge(text, true), 1.0], device=self.sums.device)

    def compute(self) -> dict[str, Any]:
        one, two, longest, count = self.sums
        return {"rouge1": one / count, "rouge2": two / count, "rougeL": longest / count}


def rouge(text: str, wanted: str) -> tuple[float, float, float]:
    """(ROUGE-1, ROUGE-2, ROUGE-L) of one text."""
    ours, theirs = (_WORD.findall(side.lower()) for side in (text, wanted))
    pairs = [Counter(pairwise(words)) for words in (ours, theirs)]
    return (
        _f1((Counter(ours) & Counter(theirs)).total(), len(ours), len(theirs)),
        _f1((pairs[0] & pairs[1]).total(), pairs[0].total(), pairs[1].total()),
        _f1(_common(ours, theirs), len(ours), len(theirs)),
    )


def _f1(shared: int, ours: int, theirs: int) -> float:
    return 2 * shared / (ours + theirs) if shared else 0.0


def _common(ours: list[str], theirs: list[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(theirs) + 1)
    for word in ours:
        before = 0
        for place, other in enumerate(theirs, start=1):
            above = row[place]
            row[place] = before + 1 if word == other else max(above, row[place - 1])
            before = above
    return row[-1]
