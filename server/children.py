"""One child process: how it is started, and how it is ended with all that it started.

Every child leads a process group of its own, so a Ctrl-C in the terminal reaches `up` alone, which
then ends the children in order. On Linux the kernel also sends each child its `death_signal` when
its parent dies, so that `kill -9` of `up` leaves nothing running. That signal is tied to the thread
that called `spawn`: call it from a thread that lives as long as the child should.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from core.parent import die_with_parent


@dataclass(frozen=True)
class Child:
    """A command to keep running. `env` is the whole environment, not an addition to ours."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    """System user to run as; None is our own."""
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    """Sent by the kernel when our process dies without having stopped the child."""
    grace: float = 10.0
    """Seconds between `stop_signal` and SIGKILL."""


def spawn(child: Child, output: int) -> subprocess.Popen[bytes]:
    """Start a child with `output` (a file descriptor) as its standard output and error."""
    return subprocess.Popen(
        list(child.argv),
        env=dict(child.env),
        cwd=child.cwd,
        user=child.user,
        group=child.user,
        extra_groups=[] if child.user else None,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        process_group=0,
        # Runs after the switch of user, which would have cleared the setting.
        preexec_fn=partial(die_with_parent, os.getpid(), child.death_signal),
    )


def has_exited(process: subprocess.Popen[bytes]) -> bool:
    """Whether the child is dead. Leaves it unreaped, so its number stays its own until `reap`."""
    if process.returncode is not None:
        return True
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def request_stop(child: Child, process: subprocess.Popen[bytes]) -> None:
    """Ask a child to end. It may pass the request on to its own children as it sees fit."""
    if not has_exited(process):
        process.send_signal(child.stop_signal)


def reap(process: subprocess.Popen[bytes]) -> int:
    """End what is left of a child's process group, collect the child, return its exit status."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def stop(child: Child, process: subprocess.Popen[bytes]) -> int:
    """Request, wait out the grace, then kill what remains of the group."""
    request_stop(child, process)
    deadline = time.monotonic() + child.grace
    while not has_exited(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return reap(process)
