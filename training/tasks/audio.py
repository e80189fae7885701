"""What tasks on recordings share: the feature extractor, rows read from the file, features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from training import audio, pretrained
from training.audio import Recordings
from training.tasks.base import Task


class AudioTask(Task[Recordings]):
    """A task whose rows hold a recording, which the model's feature extractor makes a tensor of."""

    extractor: Any
    config: PreTrainedConfig

    @abstractmethod
    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> list[Any]:
        """What each of these rows is to give. Raises BadData."""

    def read(self, path: Path, param: str, between_chunks: Callable[[], None]) -> Recordings:
        rate = self.extractor.sampling_rate
        examples = audio.read(
            path, rate, param, between_chunks, lambda table, ids: self.encode(table, ids, param)
        )
        self._hide_no_more_than_there_is(examples)
        return examples

    def features(
        self, examples: Recordings, rows: npt.NDArray[np.int64]
    ) -> dict[str, torch.Tensor]:
        """The model's inputs, padded to the longest where they are not of one length by nature."""
        heard = {"return_attention_mask": True} if self._minds_padding() else {}
        features = self.extractor(
            examples.decoded(rows),
            sampling_rate=self.extractor.sampling_rate,
            padding=True if self.config.model_type in audio.WAVES else "max_length",
            return_tensors="pt",
            **heard,
        )
        return dict(features)

    def _minds_padding(self) -> bool:
        """Models with a group norm over time were trained without a mask, on zeros as padding."""
        waves = self.config.model_type in audio.WAVES
        return waves and getattr(self.config, "feat_extract_norm", "layer") == "layer"

    def _hide_no_more_than_there_is(self, examples: Recordings) -> None:
        """SpecAugment hides spans of a length that the shortest recording must have."""
        if not getattr(self.config, "apply_spec_augment", False):
            return
        if self.config.model_type not in audio.WAVES or not self.config.mask_time_prob:
            return
        shortest = self.frames(int(examples.lengths.min()))
        if shortest <= self.config.mask_time_length:
            self.config.apply_spec_augment = False
            self.log(
                f"The shortest recording has {shortest} frames, and the model would hide "
                f"{self.config.mask_time_length} at a time while it learns: nothing is hidden."
            )

    def frames(self, samples: int) -> int:
        """What the convolutions of a model on waves make of so many samples."""
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(samples, 0)

    def load_parts(self, folder: Path) -> None:
        self.config = pretrained.load_config(folder)
        self.extractor = pretrained.load_feature_extractor(folder)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)
