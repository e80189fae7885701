"""A process that ends with the process that started it, even when that one is killed.

By `PR_SET_PDEATHSIG`, which is Linux's; elsewhere nothing is promised. The kernel ties it to the
thread that forked: it must live as long as the child should. A change of user clears it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: a child between fork and exec must not have to load a library.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(
    parent: int | None = None, death_signal: signal.Signals = signal.SIGKILL
) -> None:
    """Have the kernel send this process `death_signal` when its parent dies.

    `parent` is the number of the process that forked, where the caller knows it: if that one died
    before this call, the process ends here.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal))
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
