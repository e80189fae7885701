"""How well classes of pixels are told, from counts alone."""

from __future__ import annotations

import torch
from torchmetrics import Metric


class SegmentationScores(Metric):
    """Mean IoU over the classes that are there or were told, and the share of right pixels.

    Over all pixels of all images together, as Pascal VOC and ADE20K have it.
    """

    full_state_update = False
    counts: torch.Tensor
    """Pixels by (class, class told)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state(
            "counts", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum"
        )

    def update(self, told: torch.Tensor, true: torch.Tensor) -> None:
        """Take in the class numbers of labelled pixels, flat."""
        pairs = true * self.classes + told
        found = torch.bincount(pairs, minlength=self.classes**2)
        self.counts += found.view(self.classes, self.classes)

    def compute(self) -> dict[str, torch.Tensor]:
        right = self.counts.diagonal().double()
        union = (self.counts.sum(dim=0) + self.counts.sum(dim=1)).double() - right
        there = union > 0
        return {
            "mean_iou": (right[there] / union[there]).mean(),
            "pixel_accuracy": right.sum() / self.counts.sum(),
        }
