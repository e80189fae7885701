"""Image classification: each image belongs to one of the classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torchmetrics import MetricCollection
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from training import mixing
from training.images import Images
from training.labels import (
    CLASS_METRICS,
    class_ids,
    class_loss,
    class_metrics,
    class_names,
    set_labels,
)
from training.mixing import Mix
from training.tasks.base import Batch, Loss
from training.tasks.image import ImageTask


class ImageClassification(ImageTask):
    model_class = AutoModelForImageClassification
    metric_names = CLASS_METRICS

    def configure(self, config: PreTrainedConfig) -> bool:
        config.problem_type = "single_label_classification"
        return set_labels(config, self.spec.labels)

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> list[int]:
        return [int(found) for found in class_ids(table["label"], self.spec.labels, ids, param)]

    def collate(
        self, examples: Images, rows: npt.NDArray[np.int64], epoch: int | None = None
    ) -> Batch:
        """Pixels (rows, channels, height, width), and a class a row."""
        pixels = self._pixels(examples, rows, epoch)
        targets = torch.tensor([examples.targets[row] for row in rows])
        mix = None
        if epoch is not None and mixing.wanted(self.spec):
            plans = [
                mixing.plan(self.spec, len(examples.ids), [self.spec.seed, epoch, int(number)])
                for number in examples.ids[rows]
            ]
            partners = np.array([plan.partner for plan in plans])
            pixels, shares = mixing.mixed(pixels, self._pixels(examples, partners, epoch), plans)
            of_partners = torch.tensor([examples.targets[row] for row in partners])
            mix = Mix(of_partners, torch.from_numpy(shares))
        return Batch({"pixel_values": pixels}, targets, tokens=len(rows), mix=mix)

    def _pixels(
        self, examples: Images, rows: npt.NDArray[np.int64], epoch: int | None
    ) -> torch.Tensor:
        seen = [view.image for view in self.views(examples, rows, epoch)]
        pixels: torch.Tensor = self.processor(images=seen, return_tensors="pt")["pixel_values"]
        return pixels

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Cross-entropy of logits (rows, classes) in fp32."""
        logits = model(**batch.inputs).logits
        return class_loss(logits, batch.targets, self.emphasis_in(model), batch.mix)

    def metrics(self, device: torch.device) -> MetricCollection:
        return class_metrics(len(self.spec.labels)).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        metrics.update(loss.outputs, batch.targets)

    def told(self, loss: Loss, batch: Batch) -> list[str]:
        return class_names(loss, self.spec.labels)


TASK = ImageClassification
