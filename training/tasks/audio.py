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
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from core.errors import InvalidRequest
from training import audio, hearing, pretrained
from training.audio import Recordings, Samples
from training.spans import Hiding, SpecAugment
from training.tasks.base import Batch, Task


class AudioTask(Task[Recordings]):
    """A task whose rows hold a recording, which the model's feature extractor makes a tensor of."""

    extractor: Any
    config: PreTrainedConfig
    hiding: Hiding
    room: int | None = None
    """The most samples that a recording may have, for a task that must not lose any."""

    @abstractmethod
    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> list[Any]:
        """What each of these rows is to give. Raises BadData."""

    def read(self, path: Path, param: str, between_chunks: Callable[[], None]) -> Recordings:
        rate = self.extractor.sampling_rate
        return audio.read(
            path, rate, param, between_chunks, lambda table, ids: self.encode(table, ids, param)
        )

    def heard(
        self, examples: Recordings, rows: npt.NDArray[np.int64], epoch: int | None
    ) -> list[Samples]:
        """What is heard of these recordings in an epoch; in an evaluation as they are."""
        decoded = examples.decoded(rows)
        if epoch is None or not hearing.wanted(self.spec):
            return decoded
        return [
            hearing.heard(samples, examples.rate, self.spec, key, room=self.room)
            for samples, key in zip(decoded, self._keys(examples, rows, epoch), strict=True)
        ]

    def _keys(
        self, examples: Recordings, rows: npt.NDArray[np.int64], epoch: int
    ) -> list[list[int]]:
        return [[self.spec.seed, epoch, int(number)] for number in examples.ids[rows]]

    def features(
        self,
        examples: Recordings,
        rows: npt.NDArray[np.int64],
        heard: list[Samples],
        epoch: int | None,
    ) -> dict[str, torch.Tensor]:
        """The model's inputs, padded to the longest where they are not of one length by nature, and
        of models on waves what of them is to be hidden, which `run` takes out."""
        waves = self.config.model_type in audio.WAVES
        inputs = self._waves(heard) if waves else self._spectra(heard)
        augment = SpecAugment.of(self.config, self.spec)
        if epoch is None or not augment.wanted:
            return inputs
        keys = self._keys(examples, rows, epoch)
        if waves:
            lengths = [self.frames(len(samples)) for samples in heard]
            inputs["frames"], inputs["bands"] = augment.drawn(
                lengths, self.config.hidden_size, keys
            )
            return inputs
        name, axis = ("input_features", 2) if "input_features" in inputs else ("input_values", 1)
        spectra = inputs[name]
        hop = getattr(self.extractor, "hop_length", self.extractor.sampling_rate // 100)
        lengths = [min(len(samples) // hop, spectra.shape[axis]) for samples in heard]
        frames, bands = augment.drawn(lengths, spectra.shape[3 - axis], keys)
        frames = functional.pad(frames, (0, spectra.shape[axis] - frames.shape[1]))
        hidden = frames.unsqueeze(3 - axis) | bands.unsqueeze(axis)
        return {**inputs, name: spectra.masked_fill(hidden, 0)}

    def _waves(self, heard: list[Samples]) -> dict[str, torch.Tensor]:
        """Each is brought to mean 0 and variance 1 by itself, and padded after it: of a batch
        without a mask the extractor would take both over the padding as well."""
        rate = self.extractor.sampling_rate
        rows = [self.extractor(one, sampling_rate=rate)["input_values"][0] for one in heard]
        masked = {"return_attention_mask": True} if self._minds_padding() else {}
        padded = self.extractor.pad(
            {"input_values": rows}, padding=True, return_tensors="pt", **masked
        )
        return dict(padded)

    def _spectra(self, heard: list[Samples]) -> dict[str, torch.Tensor]:
        """All of one length, and in fp32 wherever this is called: some extractors work in torch."""
        with torch.autocast("cpu", enabled=False):
            return dict(
                self.extractor(
                    heard,
                    sampling_rate=self.extractor.sampling_rate,
                    padding="max_length",
                    return_tensors="pt",
                )
            )

    def run(self, model: Any, batch: Batch, **further: Any) -> Any:
        """The model's answer to a batch."""
        inputs = dict(batch.inputs)
        self.hiding.frames = inputs.pop("frames", None)
        self.hiding.bands = inputs.pop("bands", None)
        return model(**inputs, **further)

    def _minds_padding(self) -> bool:
        """Models with a group norm over time were trained without a mask, on zeros as padding."""
        waves = self.config.model_type in audio.WAVES
        return waves and getattr(self.config, "feat_extract_norm", "layer") == "layer"

    def frames(self, samples: int) -> int:
        """What the convolutions of a model on waves make of so many samples."""
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(samples, 0)

    def settle(self, model: PreTrainedModel) -> None:
        """What is left to do once the model is there. Raises InvalidRequest for what this model
        would not hear."""
        self.config = model.config
        waves = self.config.model_type in audio.WAVES
        if self.spec.audio_gain and waves and getattr(self.extractor, "do_normalize", False):
            raise InvalidRequest(
                "`audio_gain` changes nothing here: this model's feature extractor brings every "
                "recording to one loudness. Leave it out.",
                param="audio_gain",
            )
        self.hiding = Hiding(model.base_model)

    def load_parts(self, folder: Path) -> None:
        self.config = pretrained.load_config(folder)
        self.extractor = pretrained.load_feature_extractor(folder)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)
