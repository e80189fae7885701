"""SpecAugment (arXiv 1904.08779): spans of frames and of features are hidden while a model learns.

transformers draws them for a batch at once, from NumPy's global generator: they hang on how a step
was split. Here each row has its own, drawn by (seed, epoch, the row's number) alone, and the
model's own drawing is switched off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedConfig

from models.augmentation import Augmentation

SPANS = 5
"""Beside the key of a row, so that its spans are not drawn like anything else of it."""
WIDTH = 10
"""Frames, or features, of a span where the model's config does not say."""

Hidden = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Axis:
    """How much is hidden along frames or along features."""

    share: float
    width: int
    fewest: int

    @classmethod
    def of(cls, config: PreTrainedConfig, name: str, asked: float | None) -> Axis:
        """As asked for, and otherwise as the model's config has it."""
        share = asked
        if share is None:
            own = getattr(config, "apply_spec_augment", False)
            share = getattr(config, f"mask_{name}_prob", 0.0) if own else 0.0
        return cls(
            share,
            getattr(config, f"mask_{name}_length", WIDTH),
            getattr(config, f"mask_{name}_min_masks", 0),
        )

    def drawn(self, length: int, generator: np.random.Generator) -> Hidden:
        """(length,): spans may overlap, and what is too short for one has none."""
        hidden = np.zeros(length, dtype=np.bool_)
        if not self.share:
            return hidden
        count = int(self.share * length / self.width + generator.random())
        count = min(max(count, self.fewest), length // self.width)
        starts = generator.choice(max(1, length - self.width + 1), count, replace=False)
        hidden[(starts[:, None] + np.arange(self.width)).ravel()] = True
        return hidden


@dataclass(frozen=True)
class SpecAugment:
    frames: Axis
    features: Axis

    @classmethod
    def of(cls, config: PreTrainedConfig, asked: Augmentation) -> SpecAugment:
        return cls(
            Axis.of(config, "time", asked.time_masking),
            Axis.of(config, "feature", asked.frequency_masking),
        )

    @property
    def wanted(self) -> bool:
        return bool(self.frames.share or self.features.share)

    def drawn(
        self, lengths: list[int], features: int, keys: list[list[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is hidden of rows with so many frames: (rows, longest) and (rows, features)."""
        frames = torch.zeros(len(lengths), max(lengths), dtype=torch.bool)
        bands = torch.zeros(len(lengths), features, dtype=torch.bool)
        for row, (length, key) in enumerate(zip(lengths, keys, strict=True)):
            generator = np.random.default_rng([*key, SPANS])
            frames[row, :length] = torch.from_numpy(self.frames.drawn(length, generator))
            bands[row] = torch.from_numpy(self.features.drawn(features, generator))
        return frames, bands


class Hiding:
    """In the place of what a body would hide of its input: what it was told to of this batch."""

    def __init__(self, body: Any) -> None:
        self.frames: torch.Tensor | None = None
        self.bands: torch.Tensor | None = None
        self._body = body
        if hasattr(body, "_mask_hidden_states"):
            body._mask_hidden_states = self._of_waves
        if hasattr(body, "_mask_input_features"):
            body._mask_input_features = _nothing

    def _of_waves(self, hidden: torch.Tensor, **batch: Any) -> torch.Tensor:
        """Of hidden states (rows, frames, features): frames become a vector that is learnt."""
        if self.frames is not None:
            instead = getattr(self._body, "masked_spec_embed", None)
            if instead is None:
                hidden = hidden.masked_fill(self.frames[..., None], 0)
            else:
                hidden = torch.where(self.frames[..., None], instead.to(hidden.dtype), hidden)
        if self.bands is not None:
            hidden = hidden.masked_fill(self.bands[:, None], 0)
        return hidden


def _nothing(input_features: torch.Tensor, **batch: Any) -> torch.Tensor:
    """Spectra come with zeros where something is hidden."""
    return input_features
