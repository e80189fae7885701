"""Images of a file: they stay in it, mapped into memory, until a batch wants their pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from transformers import PreTrainedConfig, ViTImageProcessorPil
from transformers.models.auto import image_processing_auto as processors

from training import media, pretrained
from training.failures import ModelUnavailable
from training.views import decode

PROCESSOR = "preprocessor_config.json"
UNSTATED_SIZE = 224
"""Pixels of a side, where neither config nor processor says."""


@dataclass(frozen=True)
class Images:
    """Rows with an image each. Decoding is left to `collate`: pixels take many times the room of
    the files that they are packed in."""

    table: pa.Table
    ids: npt.NDArray[np.int64]
    targets: list[Any]
    """What each row is to give, as its task wants it."""

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """All alike: a processor brings images to one size."""
        return np.ones(len(self.ids), dtype=np.int32)

    def decoded(self, rows: npt.NDArray[np.int64]) -> list[Image.Image]:
        """RGB images, turned as they are shown (EXIF orientation)."""
        column = self.table["image"]
        return [decode(column[int(row)].as_py()) for row in rows]


def read(
    path: Path, param: str, between_chunks: Callable[[], None], encode: media.Encode
) -> Images:
    """The rows of an Arrow file; `encode` makes a chunk's targets. Raises BadData."""
    return Images(*media.read(path, param, between_chunks, encode))


def has_processor(model_type: str) -> bool:
    """Whether there is an image processor on Pillow for this type of model."""
    kinds = processors.IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type)  # type: ignore[attr-defined]
    return isinstance(kinds, dict) and "pil" in kinds


def load_processor(folder: Path, config: PreTrainedConfig, *, scratch: bool) -> Any:
    """The image processor of a folder, on Pillow. Raises ModelUnavailable.

    A model from scratch may come without: its images are resized, and their values brought to
    [-1, 1]. Weights without one say nothing about the images that they were trained on.
    """
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise ModelUnavailable(
            f"The model takes images of {channels} channels, and only those of 3 are made.",
            param="model",
            hint="Choose a model for RGB images.",
        )
    if not (folder / PROCESSOR).is_file() and scratch:
        size = getattr(config, "image_size", None) or UNSTATED_SIZE
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return ViTImageProcessorPil(size={"height": height, "width": width})
    return pretrained.load_image_processor(folder)


def as_png(values: npt.NDArray[np.uint8]) -> str:
    """A grey picture (height, width) as PNG in base64."""
    packed = io.BytesIO()
    Image.fromarray(values).save(packed, format="PNG")
    return base64.b64encode(packed.getvalue()).decode()
