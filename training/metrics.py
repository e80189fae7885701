"""Metrics over tokens, from sums alone: nothing is kept that grows with the rows."""

from __future__ import annotations

import torch
from torchmetrics import Metric


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
