"""Semantic segmentation: each pixel of an image belongs to one of the classes, or to none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn import functional
from torchmetrics import MetricCollection
from transformers import AutoModelForSemanticSegmentation, PreTrainedConfig, PreTrainedModel

from core.errors import BadData
from training.images import Images, as_png
from training.labels import UNKNOWN, set_labels
from training.segments import SegmentationScores
from training.sequences import bad_rows
from training.tasks.base import Batch, Loss
from training.tasks.image import ImageTask
from training.views import mask_values

UNLABELLED = 255


class ImageSegmentation(ImageTask):
    model_class = AutoModelForSemanticSegmentation
    metric_names = ("mean_iou", "pixel_accuracy")

    @classmethod
    def model_types(cls) -> set[str]:
        """Those without a second head, whose processor takes masks along."""
        return super().model_types() & {"segformer"}

    def configure(self, config: PreTrainedConfig) -> bool:
        config.semantic_loss_ignore_index = UNLABELLED
        return set_labels(config, self.spec.labels)

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        model = super().load(folder, exact=exact)
        # Class 0 is a class like others here, and not what has none.
        self.processor.do_reduce_labels = False
        return model

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> list[Any]:
        """A table for each row that gives a mask's values their class numbers."""
        if len(self.spec.labels) > UNLABELLED:
            raise BadData(
                f"The masks have {len(self.spec.labels)} classes, and at most {UNLABELLED} are "
                "told apart.",
                param=param,
                hint="Merge some, or leave rare ones out.",
            )
        numbers = {label: number for number, label in enumerate(self.spec.labels)}
        names = table["mask_labels"].to_pylist()
        unknown = [row for row, own in zip(ids, names, strict=True) if not set(own) <= set(numbers)]
        if unknown:
            raise bad_rows(unknown, UNKNOWN, param)
        tables = []
        for values, own in zip(table["mask_ids"].to_pylist(), names, strict=True):
            # A mask of 16 bits may have values beyond 255.
            classes = np.full(max([UNLABELLED, *values]) + 1, UNLABELLED, dtype=np.uint8)
            classes[values] = [numbers[name] for name in own]
            tables.append(classes)
        return tables

    def collate(
        self, examples: Images, rows: npt.NDArray[np.int64], epoch: int | None = None
    ) -> Batch:
        """Pixels (rows, channels, height, width), and classes (rows, height, width)."""
        column = examples.table["mask"]
        views = self.views(examples, rows, epoch)
        masks = [
            view.mask(examples.targets[row][mask_values(column[int(row)].as_py())], UNLABELLED)
            for view, row in zip(views, rows, strict=True)
        ]
        made = self.processor(
            images=[view.image for view in views], segmentation_maps=masks, return_tensors="pt"
        )
        classes = torch.as_tensor(np.stack([np.asarray(mask) for mask in made["labels"]])).long()
        return Batch({"pixel_values": made["pixel_values"]}, classes, tokens=len(rows))

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Cross-entropy in fp32 over the pixels that have a class, of logits (rows, classes, h, w)
        that are brought to the size of the image."""
        logits = model(**batch.inputs).logits.float()
        logits = functional.interpolate(
            logits, size=batch.targets.shape[-2:], mode="bilinear", align_corners=False
        )
        known = batch.targets != UNLABELLED
        told = logits.detach().argmax(dim=1)[known]
        true = batch.targets[known]
        return Loss(
            sum=functional.cross_entropy(
                logits, batch.targets, ignore_index=UNLABELLED, reduction="sum"
            ),
            count=int(known.sum()),
            outputs=(told, true),
            train_sums={"accuracy": (told == true).float().sum()},
        )

    def metrics(self, device: torch.device) -> MetricCollection:
        return MetricCollection({"pixels": SegmentationScores(len(self.spec.labels))}).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        metrics.update(*loss.outputs)

    def tell(
        self, model: PreTrainedModel, examples: Images, rows: npt.NDArray[np.int64]
    ) -> list[dict[str, str]]:
        """Class numbers as a grey PNG, of whatever size the model tells them at."""
        batch = self.collate(examples, rows).to(model.device)
        classes = model(**batch.inputs).logits.argmax(dim=1).to(torch.uint8)
        return [{"classes": as_png(one.cpu().numpy())} for one in classes]


TASK = ImageSegmentation
