"""The trainer, but some seeds make it come to grief at a step: what a bad job does to a process.

Everything else is the trainer's own. tests/faults/test_poison.py gives this file a first line that
names the interpreter.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from collections.abc import Callable

import torch

from training.run import Run

STEP = 5


def _segfault(run: Run) -> None:
    ctypes.string_at(0)


def _exit_without_a_result(run: Run) -> None:
    os._exit(0)


def _killed_for_memory(run: Run) -> None:
    """What the kernel does."""
    os.kill(os.getpid(), signal.SIGKILL)


def _too_large(run: Run) -> None:
    torch.empty(2**50)


def _not_a_number(run: Run) -> None:
    with torch.no_grad():
        next(run.model.parameters()).fill_(float("nan"))


def _own_error(run: Run) -> None:
    raise LookupError("a mistake of ours")


DEEDS: dict[int, Callable[[Run], None]] = {
    1001: _segfault,
    1002: _exit_without_a_result,
    1003: _killed_for_memory,
    1004: _too_large,
    1005: _not_a_number,
    1006: _own_error,
}

_gradient = Run._gradient


def gradient(run: Run) -> object:
    deed = DEEDS.get(run.spec.seed)
    if deed is not None and run.state.step >= STEP:
        print(f"now comes {deed.__name__}", file=sys.stderr, flush=True)
        deed(run)
    return _gradient(run)


Run._gradient = gradient  # type: ignore[assignment,method-assign]
# A worker calls it as it would call Python: of the trainer, and of the process that draws.
sys.argv = sys.argv[sys.argv.index("-m") + 1 :]
runpy.run_module(sys.argv[0], run_name="__main__")
