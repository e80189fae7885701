"""The device of a run: determinism, precision, memory, and what exactness depends on."""

from __future__ import annotations

import ctypes
import gc
import platform
import resource
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any

import psutil
import torch

from core.errors import InvalidRequest
from models.optimisation import Precision
from training.parallel import ALONE, Ranks

RUSAGE_UNIT = 1 if platform.system() == "Darwin" else 1024


def available() -> str:
    """The best device of this process: "cuda" or "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def gpus() -> int:
    """How many GPUs this process may use."""
    return torch.cuda.device_count()


def prepare(name: str, threads: int | None, ranks: Ranks = ALONE) -> torch.device:
    """Make this process compute the same bits each time, and return its device.

    Ranks on a CPU share its cores.

    Operations without a deterministic kernel warn and run: refusing them would refuse models.
    """
    if threads is None and name == "cpu" and ranks.count > 1:
        threads = max(1, torch.get_num_threads() // ranks.count)
    if threads is not None:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Determinism would also fill every new tensor with NaN, to show reads of what nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device(name, ranks.rank) if name == "cuda" else torch.device(name)


def half_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """The dtype of 16 bits to compute in, if any. Weights, gradients and optimizer state stay fp32.

    "auto" takes bf16 where CUDA has it. On a CPU it takes fp32: that is exact, loads back to the
    same logits anywhere, and only the newest CPUs have fast bf16. "tf32" lets CUDA round the
    factors of matrix products to 10 bits. Raises InvalidRequest for what this device has not.
    """
    on_cuda = device.type == "cuda"
    if precision in ("fp16", "tf32") and not on_cuda:
        raise InvalidRequest(
            f"`precision` {precision!r} needs a GPU, and this job runs on a CPU.",
            hint="Choose 'fp32' or 'bf16'.",
            param="precision",
        )
    if on_cuda:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if precision == "auto":
        has_bf16 = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else None
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def autocast(device: torch.device, half: torch.dtype | None) -> AbstractContextManager[Any]:
    """The context for a forward pass."""
    return torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None)


def release_memory() -> None:
    """Give back what a failed allocation left behind. Call it outside the `except` block: the
    exception's traceback holds the tensors."""
    gc.collect()
    release_pages()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def release_pages() -> None:
    """Give the machine's memory that this process has freed, and its allocator keeps, back to the
    system: what comes next wants pieces of other sizes. With another allocator than tcmalloc and
    glibc's it does nothing."""
    process = ctypes.CDLL(None)
    if hasattr(process, "MallocExtension_ReleaseFreeMemory"):
        process.MallocExtension_ReleaseFreeMemory()
    elif hasattr(process, "malloc_trim"):
        process.malloc_trim(0)


def name(kind: str) -> str:
    """What the device is, for people and for telling like from like: "cpu: x86_64, 8 threads"."""
    if kind == "cuda":
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu: {platform.machine()}, {torch.get_num_threads()} threads"


def memory(kind: str) -> int:
    """Bytes that the device has in all; of a CPU the machine's."""
    if kind == "cuda":
        return int(torch.cuda.get_device_properties().total_memory)
    return int(psutil.virtual_memory().total)


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held of the device's memory so far; of a CPU, of the
    machine's, libraries included."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RUSAGE_UNIT


def versions() -> dict[str, str]:
    """The libraries whose versions can change a result."""
    names = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def environment(device: torch.device, ranks: Ranks = ALONE) -> dict[str, Any]:
    """All that bit-exactness hangs on: a resume elsewhere than in an equal one may differ in the
    last bits, and says so."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "versions": versions(),
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "ranks": ranks.count,
        "sharding": "full" if ranks.sharded else "none",
    }
