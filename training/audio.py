"""Recordings of a file: they stay in it, mapped into memory, until a batch wants their samples."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import soundfile
from scipy.signal import resample_poly

from training import media

Samples = npt.NDArray[np.float32]

WAVES = frozenset(
    {"data2vec-audio", "hubert", "sew", "sew-d", "unispeech", "unispeech-sat", "wav2vec2",
     "wav2vec2-conformer", "wavlm"}
)  # fmt: skip
"""The model types that hear the wave itself, by a stack of convolutions."""


@dataclass(frozen=True)
class Recordings:
    """Rows with a recording each. Decoding is left to `collate`, as with images."""

    table: pa.Table
    ids: npt.NDArray[np.int64]
    rate: int
    """Samples a second that the model hears."""
    targets: list[Any]
    """What each row is to give, as its task wants it."""

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Samples of each row, at the model's rate."""
        samples = np.array(self.table["seconds"], dtype=np.float64) * self.rate
        return np.ceil(samples).astype(np.int32)

    def decoded(self, rows: npt.NDArray[np.int64]) -> list[Samples]:
        column = self.table["audio"]
        return [decode(column[int(row)].as_py(), self.rate) for row in rows]


def decode(packed: bytes, rate: int) -> Samples:
    """One channel, the mean of all, in [-1, 1] at this rate.

    Resampling is by a polyphase filter that leaves out what the new rate cannot carry.
    """
    samples, own = soundfile.read(io.BytesIO(packed), dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if own == rate:
        return np.asarray(mono, dtype=np.float32)
    shared = math.gcd(own, rate)
    return np.asarray(resample_poly(mono, rate // shared, own // shared), dtype=np.float32)


def read(
    path: Path, rate: int, param: str, between_chunks: Callable[[], None], encode: media.Encode
) -> Recordings:
    """The rows of an Arrow file; `encode` makes a chunk's targets. Raises BadData."""
    table, ids, targets = media.read(path, param, between_chunks, encode)
    return Recordings(table, ids, rate, targets)
