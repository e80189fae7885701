"""What a training step makes of classes beyond plain cross-entropy. An evaluation stays plain, so
that its losses can be compared between runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from models.spec import ResolvedSpec

SURE = 1e-12
"""The least that is taken as the chance of being wrong; fp32 has nothing between 6e-8 and 0."""


@dataclass(frozen=True)
class Emphasis:
    smoothing: float
    gamma: float | None
    """Focal loss (arXiv 1708.02002): (1 - p)^gamma times the cross-entropy."""
    weights: torch.Tensor | None
    """What a row of each class counts: (classes,), fp32."""

    @classmethod
    def of(cls, spec: ResolvedSpec, targets: Any) -> Emphasis | None:
        """What the spec asks for; `targets` are the training rows' classes. None if nothing."""
        if not (spec.label_smoothing or spec.focal_gamma or spec.class_weights):
            return None
        weights = None
        if spec.class_weights == "balanced":
            counts = np.bincount(np.asarray(targets, dtype=np.int64), minlength=len(spec.labels))
            # A class without rows is never looked up.
            shares = len(targets) / (len(spec.labels) * np.maximum(counts, 1))
            weights = torch.tensor(shares, dtype=torch.float32)
        elif isinstance(spec.class_weights, dict):
            weights = torch.tensor([spec.class_weights[label] for label in spec.labels])
        return cls(spec.label_smoothing, spec.focal_gamma, weights)

    def losses(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(rows,) of logits (rows, classes) in fp32 and classes (rows,). The count stays that of
        the rows, whatever they weigh."""
        losses = functional.cross_entropy(
            logits, targets, reduction="none", label_smoothing=self.smoothing
        )
        if self.gamma is not None:
            # At 0 the power of a gamma below 1 has no slope, and a sure guess would give NaN.
            losses = (1 - (-losses).exp()).clamp(min=SURE) ** self.gamma * losses
        if self.weights is not None:
            losses = losses * self.weights.to(losses.device)[targets]
        return losses
