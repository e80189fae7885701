"""Image classification: each image belongs to one of the classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torchmetrics import MetricCollection
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from training.images import Images
from training.labels import (
    CLASS_METRICS,
    class_ids,
    class_loss,
    class_metrics,
    set_labels,
)
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
        pixels = self.processor(images=examples.decoded(rows), return_tensors="pt")
        targets = torch.tensor([examples.targets[row] for row in rows])
        return Batch({"pixel_values": pixels["pixel_values"]}, targets, tokens=len(rows))

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Cross-entropy of logits (rows, classes) in fp32."""
        return class_loss(model(**batch.inputs).logits, batch.targets, self.emphasis_in(model))

    def metrics(self, device: torch.device) -> MetricCollection:
        return class_metrics(len(self.spec.labels)).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        metrics.update(loss.outputs, batch.targets)


TASK = ImageClassification
