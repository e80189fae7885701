"""Audio classification: each recording belongs to one of the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torchmetrics import MetricCollection
from transformers import AutoModelForAudioClassification, PreTrainedModel

from training import audio, pretrained
from training.audio import Recordings
from training.labels import (
    CLASS_METRICS,
    class_ids,
    class_loss,
    class_metrics,
    class_names,
    set_labels,
)
from training.tasks.audio import AudioTask
from training.tasks.base import Batch, Loss


class AudioClassification(AudioTask):
    model_class = AutoModelForAudioClassification
    metric_names = CLASS_METRICS

    @classmethod
    def model_types(cls) -> set[str]:
        return super().model_types() & (audio.WAVES | {"audio-spectrogram-transformer", "whisper"})

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        self.load_parts(folder)
        head_fits = set_labels(self.config, self.spec.labels)
        model, self.drawn = pretrained.load_model(
            self.model_class, folder, self.config, seed=self.spec.seed, exact=exact,
            scratch=self.from_scratch(exact=exact),
        )  # fmt: skip
        if not head_fits and pretrained.renew_head(
            self.model_class, model, self.drawn, self.spec.seed
        ):
            self.log("The model's head was trained for other labels: a new one takes its place.")
        self.settle(model)
        return model

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> list[int]:
        return [int(found) for found in class_ids(table["label"], self.spec.labels, ids, param)]

    def collate(
        self, examples: Recordings, rows: npt.NDArray[np.int64], epoch: int | None = None
    ) -> Batch:
        """Waves (rows, samples) or spectra, and a class a row. Tokens are seconds."""
        targets = torch.tensor([examples.targets[row] for row in rows])
        seconds = int(examples.lengths[rows].sum()) // examples.rate
        heard = self.heard(examples, rows, epoch)
        return Batch(self.features(examples, rows, heard, epoch), targets, tokens=seconds)

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Cross-entropy of logits (rows, classes) in fp32."""
        return class_loss(self.run(model, batch).logits, batch.targets, self.emphasis_in(model))

    def metrics(self, device: torch.device) -> MetricCollection:
        return class_metrics(len(self.spec.labels)).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        metrics.update(loss.outputs, batch.targets)

    def told(self, loss: Loss, batch: Batch) -> list[str]:
        return class_names(loss, self.spec.labels)


TASK = AudioClassification
