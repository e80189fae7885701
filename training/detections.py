"""How well objects are found: COCO's mean average precision."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
from faster_coco_eval import COCO, COCOeval_faster
from torchmetrics import Metric

Found = list[dict[str, Any]]


class DetectionScores(Metric):
    """mAP over IoU 0.50 to 0.95, and at 0.50, as COCO has them.

    What was found is ranked over all images together, so it is kept: some numbers for each of a
    model's queries, and no image.
    """

    full_state_update = False

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.images: Found = []
        self.objects: Found = []
        self.found: Found = []

    def update(self, found: list[Found], true: list[Found]) -> None:
        """Take in images: each found object as `category_id`, `bbox` and `score`, each true one as
        `category_id`, `bbox` and `iscrowd`; boxes are [x, y, width, height]."""
        for told, there in zip(found, true, strict=True):
            image = len(self.images) + 1
            self.images.append({"id": image})
            self.found += [item | {"image_id": image} for item in told]
            for item in there:
                area = item["bbox"][2] * item["bbox"][3]
                named = {"id": len(self.objects) + 1, "image_id": image, "area": area}
                self.objects.append(item | named)

    def compute(self) -> dict[str, torch.Tensor]:
        average, at_half = 0.0, 0.0
        if self.found and self.objects:
            # The library prints its progress and its table.
            with contextlib.redirect_stdout(io.StringIO()):
                truth = COCO(
                    {
                        "images": self.images,
                        "annotations": self.objects,
                        "categories": [{"id": number} for number in range(self.classes)],
                    }
                )
                scores = COCOeval_faster(truth, truth.loadRes(self.found), iouType="bbox")
                scores.evaluate()
                scores.accumulate()
                scores.summarize()
            average, at_half = (max(0.0, float(scores.stats[place])) for place in (0, 1))
        return {"map": torch.tensor(average), "map_50": torch.tensor(at_half)}
