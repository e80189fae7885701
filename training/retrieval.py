"""How well vectors find what belongs to them."""

from __future__ import annotations

import torch
from torchmetrics import Metric

BLOCK = 10_000
"""Rows that are searched together. Memory is bounded by it, however many rows there are."""
AT_ONCE = 256
TIE = 1e-6
"""A lead within rounding is none: equal texts in batches of other widths differ by as much."""


class RetrievalScores(Metric):
    """Each anchor looks for its own positive among all positives and negatives of its block.

    `accuracy` is the share that finds it first, `mrr` the mean of 1 / rank. Up to `BLOCK` rows
    that is a search through the whole validation set; beyond, through blocks of it.
    """

    full_state_update = False
    sums: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")
        self.anchors: list[torch.Tensor] = []
        self.positives: list[torch.Tensor] = []
        self.negatives: list[torch.Tensor] = []

    def update(
        self, anchors: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor
    ) -> None:
        """Take in unit vectors: (rows, width) twice, and (any number, width)."""
        self.anchors.append(anchors)
        self.positives.append(positives)
        self.negatives.append(negatives)
        if sum(map(len, self.anchors)) >= BLOCK:
            self._search()

    def _search(self) -> None:
        positives = torch.cat(self.positives)
        candidates = torch.cat([positives, *self.negatives])
        start = 0
        for anchors in torch.cat(self.anchors).split(AT_ONCE):
            own = positives[start : start + len(anchors)]
            scores = anchors @ candidates.T
            ranks = 1 + (scores > (anchors * own).sum(dim=1, keepdim=True) + TIE).sum(dim=1)
            found = torch.stack(
                [(ranks == 1).sum(), (1 / ranks).sum(), ranks.new_tensor(len(ranks))]
            )
            self.sums += found.double()
            start += len(anchors)
        self.anchors, self.positives, self.negatives = [], [], []

    def compute(self) -> dict[str, torch.Tensor]:
        if self.anchors:
            self._search()
        first, reciprocal, count = self.sums
        return {"accuracy": first / count, "mrr": reciprocal / count}
