"""The supervisor with small real commands: output, restarts, order of the end, kill -9."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from server.children import Child, reap, spawn, stop
from server.supervisor import CannotStart, Ended, Supervisor

ENV = dict(os.environ)


def python(name: str, code: str, *arguments: str, **more: object) -> Child:
    argv = [sys.executable, "-S", "-c", code, *arguments]
    return Child(name, argv, ENV, **more)  # type: ignore[arg-type]


def eventually(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@pytest.fixture
def supervisor() -> tuple[Supervisor, io.StringIO]:
    output = io.StringIO()
    return Supervisor(output), output


def test_every_line_stands_under_its_name(supervisor: tuple[Supervisor, io.StringIO]) -> None:
    it, output = supervisor
    code = "import sys; print('one'); print('two', file=sys.stderr); print('no end', end='')"
    with it:
        it.start([python("talker", code + "; sys.stdout.flush()")])
        it.wait(lambda: "no end" in output.getvalue(), "its output", 10)
    lines = output.getvalue().splitlines()
    assert {"talker   | one", "talker   | two", "talker   | no end"} <= set(lines)


def test_a_line_without_an_end_is_printed_in_pieces(
    supervisor: tuple[Supervisor, io.StringIO],
) -> None:
    it, output = supervisor
    code = "import sys, time; sys.stdout.write('x' * 300_000); sys.stdout.flush(); time.sleep(60)"
    with it:
        it.start([python("endless", code)])
        it.wait(lambda: output.getvalue().count("x") >= 131_072, "its output", 10)


def test_a_dead_child_is_started_again(
    supervisor: tuple[Supervisor, io.StringIO], tmp_path: Path
) -> None:
    it, output = supervisor
    code = """if True:
        import pathlib, sys, time
        mark = pathlib.Path(sys.argv[1])
        if mark.exists():
            print("second life", flush=True)
            time.sleep(60)
        mark.touch()
        sys.exit(7)
    """
    with it:
        it.start([python("mortal", code, str(tmp_path / "mark"))])
        it.wait(lambda: "second life" in output.getvalue(), "a second life", 10)
    assert "mortal ended (exit status 7); starting it again in 1 s" in output.getvalue()


def test_a_child_that_keeps_dying_ends_the_start(
    supervisor: tuple[Supervisor, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.supervisor.FIRST_DELAY", 0.01)
    it, _ = supervisor
    with it:
        it.start([python("broken", "raise SystemExit(3)")])
        with pytest.raises(CannotStart, match=r"broken ended 3 times \(exit status 3\)"):
            it.wait(lambda: False, "nothing", 30)


def test_a_command_that_is_not_there(supervisor: tuple[Supervisor, io.StringIO]) -> None:
    it, _ = supervisor
    with it, pytest.raises(CannotStart, match="absent: /no/such/command cannot be run"):
        it.start([Child("absent", ["/no/such/command"], ENV)])


def test_tiers_end_in_reverse_and_a_stubborn_child_is_killed(
    supervisor: tuple[Supervisor, io.StringIO], tmp_path: Path
) -> None:
    it, output = supervisor
    record = tmp_path / "ends"
    code = """if True:
        import signal, sys, time
        def end(number, frame):
            with open(sys.argv[1], "a") as file:
                print(sys.argv[2], file=file)
            if sys.argv[2] != "stubborn":
                sys.exit()
        signal.signal(signal.SIGTERM, end)
        print(sys.argv[2], "is up", flush=True)
        while True:
            time.sleep(1)
    """
    with it:
        it.start([python("database", code, str(record), "database")])
        it.start(
            [
                python("stubborn", code, str(record), "stubborn", grace=0.5),
                python("api", code, str(record), "api"),
            ]
        )
        it.wait(lambda: output.getvalue().count("is up") == 3, "three children", 10)
        pids = [running.process.pid for running in it._all()]
    ends = record.read_text().split()
    assert sorted(ends[:2]) == ["api", "stubborn"]
    assert ends[2:] == ["database"]
    assert "stubborn is still there; killing it" in output.getvalue()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_stopping_takes_the_grandchildren_along() -> None:
    code = """if True:
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]).pid)
        sys.stdout.flush()
        sys.stdin.read()
    """
    reader, writer = os.pipe()
    child = python("parent", code)
    process = spawn(child, writer)
    grandchild = int(os.read(reader, 100))
    stop(child, process)
    eventually(lambda: not psutil.pid_exists(grandchild))
    os.close(reader)
    os.close(writer)


def test_a_signal_ends_the_wait() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Supervisor(io.StringIO()) as it:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Ended):
            it.wait(lambda: False, "nothing", 10)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_kill_9_of_the_parent_takes_the_children_along(tmp_path: Path) -> None:
    code = """if True:
        import os, sys, time
        from server.children import Child, spawn
        sleep = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
        print(spawn(Child("child", sleep, dict(os.environ)), 2).pid, flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not psutil.pid_exists(child) or _is_zombie(child))


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_reaping_returns_the_status() -> None:
    process = spawn(python("brief", "raise SystemExit(5)"), 2)
    eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert reap(process) == 5
