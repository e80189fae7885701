"""Randomness that a resume cannot lose.

Every optimizer step seeds all generators anew from (seed, step, rank), so dropout in step k is the
same whether the run reached k in one go, after a resume, or at a second try after running out of
memory. A checkpoint keeps the generators' states beside that, for whatever draws between steps.
"""

from __future__ import annotations

import hashlib
import random
import struct
from typing import Any

import numpy as np
import torch


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """63 bits, unrelated for neighbouring steps: a hash, since seed + step would repeat runs."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, step, rank), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_all(value: int) -> None:
    """Seed torch on every device, and Python's and NumPy's generators, which models draw from."""
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value % 2**32)


def capture() -> dict[str, Any]:
    """The states of all generators, in types that `torch.load(weights_only=True)` accepts."""
    numpy = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": numpy | {"state": numpy["state"] | {"key": numpy["state"]["key"].tolist()}},
    }


def restore(states: dict[str, Any]) -> None:
    """Put back what `capture` took."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
