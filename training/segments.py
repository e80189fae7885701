"""How well classes of pixels are told, from counts alone."""

from __future__ import annotations

import torch

from training.metrics import Confusion


class SegmentationScores(Confusion):
    """Mean IoU over the classes that are there or were told, and the share of right pixels.

    Over all pixels of all images together, as Pascal VOC and ADE20K have it.
    """

    def compute(self) -> dict[str, torch.Tensor]:
        right = self.counts.diagonal().double()
        union = (self.counts.sum(dim=0) + self.counts.sum(dim=1)).double() - right
        there = union > 0
        return {
            "mean_iou": (right[there] / union[there]).mean(),
            "pixel_accuracy": right.sum() / self.counts.sum(),
        }
