"""What is heard of a recording in an epoch: louder or softer, earlier or later, through noise.

What is drawn depends on the key alone (trap 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.augmentation import Augmentation

HEARING = 4
"""Beside the key of a row, so that what is heard of it is not drawn like anything else of it."""
NOISE_RANGE = 30.0
"""Decibels between the loudest noise and the softest."""

Samples = npt.NDArray[np.float32]


def wanted(asked: Augmentation) -> bool:
    return bool(asked.audio_gain or asked.audio_shift or asked.audio_snr is not None)


def heard(
    samples: Samples, rate: int, asked: Augmentation, key: Sequence[int], *, room: int | None
) -> Samples:
    """A recording as it is heard.

    With `room` nothing of it may get lost: it only begins later, and has at most so many samples
    in the end. Without, it keeps its length and loses what a shift moves over its edges.
    """
    generator = np.random.default_rng([*key, HEARING])
    gain, shift, ratio = generator.uniform(-1, 1, size=3).tolist()
    most = round(asked.audio_shift * rate)
    if room is None:
        samples = _shifted(samples, round(shift * most))
    else:
        later = round((shift + 1) / 2 * min(most, max(0, room - len(samples))))
        samples = np.concatenate([np.zeros(later, np.float32), samples])
    samples = samples * np.float32(10 ** (gain * asked.audio_gain / 20))
    if asked.audio_snr is None:
        return samples
    below = asked.audio_snr + (ratio + 1) / 2 * NOISE_RANGE
    level = np.sqrt(np.mean(np.square(samples))) * 10 ** (-below / 20)
    noise = generator.standard_normal(len(samples), dtype=np.float32)
    return samples + noise * np.float32(level)


def _shifted(samples: Samples, later: int) -> Samples:
    moved = np.zeros_like(samples)
    kept = max(0, len(samples) - abs(later))
    if later >= 0:
        moved[len(samples) - kept :] = samples[:kept]
    else:
        moved[:kept] = samples[len(samples) - kept :]
    return moved
