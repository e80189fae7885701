"""What keeps a trainer's memory on a CPU small, by its environment.

A training step asks for the same large pieces of memory again and again. glibc gives much of it
back to the system in between, and every page that it takes anew has to be filled with zeros;
tcmalloc, where this machine has it, keeps it, in less room. And oneDNN keeps a kernel for every
size of product that it has met, of which texts of all lengths make many that do not come again.
(Figures: bench/results/training.md.)
"""

from __future__ import annotations

import ctypes.util
import os

PRELOAD = "LD_PRELOAD"
ALLOCATORS = ("tcmalloc_minimal", "tcmalloc")
KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
KERNELS_KEPT = "256"
"""In place of 1,024. A step of a ResNet-50 makes 169; one of an EfficientNet makes more than these
and then makes them anew, 0.14 ms each."""


def environment() -> dict[str, str]:
    """What is to be in a trainer's environment. Whoever runs the worker with one of these, even
    with an empty `LD_PRELOAD`, has chosen."""
    told = {KERNELS: os.environ.get(KERNELS, KERNELS_KEPT)}
    chosen = os.environ.get(PRELOAD)
    if chosen is None:
        chosen = next(filter(None, map(ctypes.util.find_library, ALLOCATORS)), None)
    return told | ({PRELOAD: chosen} if chosen else {})
