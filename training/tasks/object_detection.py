"""Object detection: objects of an image are found, each with a box and a category.

The loss is DETR's (Carion et al. 2020, section 3.1): the model's queries are matched with the
objects, and matched ones learn class and box, the others that there is nothing. It is taken of each
image by itself, over its own objects, and summed over images: over a batch, as DETR's code has it,
the share of an image would depend on which others are in its micro-batch.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torchmetrics import MetricCollection
from transformers import AutoModelForObjectDetection, PreTrainedConfig, PreTrainedModel

from training.detections import DetectionScores, Found
from training.images import Images
from training.labels import UNKNOWN, set_labels
from training.sequences import bad_rows
from training.tasks.base import Batch, Loss
from training.tasks.image import ImageTask
from training.views import View

SHOWN_OBJECTS, SHOWN_SCORE = 10, 0.3
"""Of what was found in an image, so many of the likeliest are shown, and none below that."""


class ObjectDetection(ImageTask):
    model_class = AutoModelForObjectDetection
    metric_names = ("map", "map_50")

    @classmethod
    def model_types(cls) -> set[str]:
        """Those with DETR's own loss."""
        return super().model_types() & {"detr", "yolos", "table-transformer"}

    def configure(self, config: PreTrainedConfig) -> bool:
        config.auxiliary_loss = False
        return set_labels(config, self.spec.labels)

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        model = super().load(folder, exact=exact)
        self.takes_mask = "pixel_mask" in inspect.signature(model.forward).parameters
        return model

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> list[Found]:
        """The objects of each row, as COCO writes them."""
        numbers = {label: number for number, label in enumerate(self.spec.labels)}
        rows = table.select(["boxes", "categories", "crowd"]).to_pylist()
        unknown = [
            number
            for number, row in zip(ids, rows, strict=True)
            if not set(row["categories"]) <= set(numbers)
        ]
        if unknown:
            raise bad_rows(unknown, UNKNOWN, param)
        return [
            [
                {"bbox": box, "category_id": numbers[name], "iscrowd": int(crowd),
                 "area": box[2] * box[3]}
                for box, name, crowd in zip(
                    row["boxes"], row["categories"], row["crowd"], strict=True
                )
            ]
            for row in rows
        ]  # fmt: skip

    def collate(
        self, examples: Images, rows: npt.NDArray[np.int64], epoch: int | None = None
    ) -> Batch:
        """Pixels (rows, channels, height, width), padded to the largest image. A row's references
        are its objects as the loss takes them, as COCO has them, and the size of its image."""
        views = self.views(examples, rows, epoch)
        objects = [
            _seen(examples.targets[row], view) for view, row in zip(views, rows, strict=True)
        ]
        annotations = [
            {"image_id": place, "annotations": listed} for place, listed in enumerate(objects)
        ]
        made = self.processor(
            images=[view.image for view in views], annotations=annotations, return_tensors="pt"
        )
        names = ["pixel_values", *(["pixel_mask"] if self.takes_mask else [])]
        masks = made.get("pixel_mask", [None] * len(rows))
        wanted = [
            _of_image(labels, mask) for labels, mask in zip(made["labels"], masks, strict=True)
        ]
        sizes = [view.image.size for view in views]
        return Batch(
            {name: made[name] for name in names},
            torch.cat([labels["class_labels"] for labels in wanted]),
            tokens=len(rows),
            references=list(zip(wanted, objects, sizes, strict=True)),
        )

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Summed over images. `outputs` are classes (rows, queries, classes and none) and boxes
        (rows, queries, 4) as shares of the image: centre and size."""
        told = model(**batch.inputs)
        logits, boxes = told.logits.float(), told.pred_boxes.float()
        if not torch.isfinite(boxes).all():
            # The matching would stop at such boxes with a message of its own.
            return Loss(boxes.sum() * torch.nan, len(boxes), (logits, boxes), {})
        losses = []
        for place, (wanted, _, _) in enumerate(batch.references):
            here = slice(place, place + 1)
            labels = [{name: tensor.to(logits.device) for name, tensor in wanted.items()}]
            loss, _, _ = model.loss_function(
                logits[here], labels, logits.device, boxes[here], model.config
            )
            losses.append(loss)
        return Loss(torch.stack(losses).sum(), len(losses), (logits.detach(), boxes.detach()), {})

    def metrics(self, device: torch.device) -> MetricCollection:
        return MetricCollection({"found": DetectionScores(len(self.spec.labels))}).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        metrics.update(self._found(loss, batch), [objects for _, objects, _ in batch.references])

    def told(self, loss: Loss, batch: Batch) -> list[Any]:
        """The likeliest objects of each image, with their boxes [x, y, width, height] in pixels."""
        return [
            [
                {"category": self.spec.labels[item["category_id"]], "score": item["score"],
                 "box": item["bbox"]}
                for item in sorted(found, key=lambda item: -item["score"])[:SHOWN_OBJECTS]
                if item["score"] >= SHOWN_SCORE
            ]
            for found in self._found(loss, batch)
        ]  # fmt: skip

    def _found(self, loss: Loss, batch: Batch) -> list[Found]:
        logits, boxes = (outputs.cpu() for outputs in loss.outputs)
        scores, classes = logits.softmax(dim=-1)[..., :-1].max(dim=-1)
        every = []
        for place, (_, _, (width, height)) in enumerate(batch.references):
            x, y, w, h = boxes[place].unbind(dim=-1)
            corners = torch.stack([x - w / 2, y - h / 2, w, h], dim=-1)
            pixels = corners * torch.tensor([width, height, width, height])
            every.append(
                [
                    {"bbox": box, "category_id": category, "score": score}
                    for box, category, score in zip(
                        pixels.tolist(), classes[place].tolist(), scores[place].tolist(),
                        strict=True,
                    )
                ]
            )  # fmt: skip
        return every


def _of_image(labels: Any, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What the loss takes of an image, with its boxes as shares of the image. The processor makes
    them shares of what the batch was padded to, which hangs on the image's neighbours; DETR and
    whoever reads its boxes mean the image alone. `mask` (height, width) is 1 where that lies."""
    wanted = dict(labels)
    if mask is not None:
        height, width = mask.shape
        own = int(mask[0].sum()), int(mask[:, 0].sum())
        wanted["boxes"] = wanted["boxes"] * torch.tensor([width / own[0], height / own[1]] * 2)
    return wanted


def _seen(objects: Found, view: View) -> Found:
    """Those of an image that its view shows a pixel of or more, as they lie in it."""
    if view.matrix is None:
        return objects
    boxes = view.boxes([item["bbox"] for item in objects]).tolist()
    return [
        {**item, "bbox": box, "area": box[2] * box[3]}
        for item, box in zip(objects, boxes, strict=True)
        if min(box[2:]) >= 1
    ]


TASK = ObjectDetection
