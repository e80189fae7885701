"""Metrics over tokens, from sums alone: nothing is kept that grows with the rows."""

from __future__ import annotations

import torch
from torchmetrics import Metric

MOST_CLASSES = 200
"""Beyond, nobody looks at a table of which is taken for which, and it would be large."""


class Confusion(Metric):
    """Counts by (class, class told), for a picture: it is no number of its own."""

    full_state_update = False
    counts: torch.Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state(
            "counts", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum"
        )

    def update(self, told: torch.Tensor, true: torch.Tensor) -> None:
        """Take in class numbers, in tensors of one shape. True ones below 0 do not count."""
        known = true >= 0
        pairs = true[known] * self.classes + told[known]
        found = torch.bincount(pairs, minlength=self.classes**2)
        self.counts += found.view(self.classes, self.classes)

    def compute(self) -> dict[str, torch.Tensor]:
        return {}


def confusion(classes: int) -> dict[str, Metric]:
    """A `Confusion` for a collection of metrics, unless there are too many classes for one."""
    return {"confusion": Confusion(classes)} if classes <= MOST_CLASSES else {}


class TokenScores(Metric):
    """Perplexity, and the share of tokens that were rated highest, under the name given.

    Perplexity is exp of the mean cross-entropy in nats over all supervised tokens.
    """

    full_state_update = False
    sums: torch.Tensor

    def __init__(self, accuracy: str) -> None:
        super().__init__()
        self.accuracy = accuracy
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, sums: torch.Tensor) -> None:
        """Take in a batch's (summed loss, right tokens, tokens)."""
        self.sums += sums

    def compute(self) -> dict[str, torch.Tensor]:
        loss, right, count = self.sums
        return {"perplexity": (loss / count).exp(), self.accuracy: right / count}
