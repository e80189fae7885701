"""The memory allocator of trainers: tcmalloc where this machine has it.

A training step asks for the same large pieces of memory again and again. glibc gives much of it
back to the system in between, and every page that it takes anew has to be filled with zeros;
tcmalloc keeps it, in less room (bench/results/training.md).
"""

from __future__ import annotations

import ctypes.util
import os

PRELOAD = "LD_PRELOAD"
NAMES = ("tcmalloc_minimal", "tcmalloc")


def environment() -> dict[str, str]:
    """What is to be in a trainer's environment. Whoever runs the worker with a `LD_PRELOAD`, even
    an empty one, has chosen."""
    chosen = os.environ.get(PRELOAD)
    if chosen is None:
        chosen = next(filter(None, map(ctypes.util.find_library, NAMES)), None)
    return {PRELOAD: chosen} if chosen else {}
