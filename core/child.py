"""A child process that answers one request, and is waited for no longer than that is of use."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

POLL_SECONDS = 0.1


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Let what is started here hear no request to end. An init system sends that to all processes
    of a service at once, and a child's death by it would be told as its request's fault."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ask(
    command: Sequence[str],
    request: bytes,
    *,
    env: Mapping[str, str],
    seconds: float,
    check: Callable[[], None] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Start a child in a session of its own, with the request as its standard input; its end.

    Raises subprocess.TimeoutExpired after `seconds`, and what `check` raises, which is asked now
    and again whether to go on. One that has not ended by then is killed, with all that it started.
    """
    ends_at = time.monotonic() + seconds
    # A file, not a pipe: `communicate` that is called again does not go on writing to a pipe.
    with tempfile.TemporaryFile() as question, _deaf():
        question.write(request)
        question.seek(0)
        child = subprocess.Popen(
            command,
            stdin=question,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    try:
        while True:
            if check is not None:
                check()
            left = ends_at - time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, errors = child.communicate(timeout=max(0.0, min(POLL_SECONDS, left)))
                return subprocess.CompletedProcess(command, child.returncode, output, errors)
            if left <= 0:
                raise subprocess.TimeoutExpired(command, seconds)
    finally:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
