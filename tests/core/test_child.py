"""Children that answer, hang, are asked to end by others, or are wanted no more."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from core import child

ECHO = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"
HANG = (
    "import subprocess, sys, time\n"
    "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "open(sys.stdin.read(), 'w').write(str(other.pid))\n"
    "time.sleep(60)"
)


class Unwanted(Exception):
    pass


def ask(code: str, request: bytes = b"", **options: object) -> subprocess.CompletedProcess[bytes]:
    arguments = {"env": {"PATH": os.defpath}, "seconds": 60.0} | options
    return child.ask([sys.executable, "-c", code], request, **arguments)  # type: ignore[arg-type]


def running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_request_that_fills_no_pipe_arrives_whole() -> None:
    """However often it is asked meanwhile whether to go on."""
    asked = []
    request = os.urandom(1 << 20)
    ended = ask(f"import time; time.sleep(0.5); {ECHO}", request, check=lambda: asked.append(1))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == request[::-1]
    assert len(asked) > 3


def test_what_is_wanted_no_more_ends_with_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def check() -> None:
        if note.exists() and note.read_text():
            raise Unwanted

    began = time.monotonic()
    with pytest.raises(Unwanted):
        ask(HANG, str(note).encode(), check=check)
    assert time.monotonic() - began < 30, "it waited for what was left of it"
    assert not [one for one in psutil.Process().children() if HANG in one.cmdline()]
    deadline = time.monotonic() + 10
    while running(int(note.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_so_does_what_takes_too_long() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        ask("import time; time.sleep(60)", seconds=0.3)


def test_only_who_asked_can_end_it() -> None:
    """An init system may tell a whole service to end: that is no fault of the request."""
    code = f"import os, signal; os.kill(os.getpid(), signal.SIGTERM); {ECHO}"
    results = []
    # From a thread, as the pool of a control worker does.
    thread = threading.Thread(target=lambda: results.append(ask(code, b"ab")))
    thread.start()
    thread.join(60)
    assert [(ended.returncode, ended.stdout) for ended in results] == [(0, b"ba")]
