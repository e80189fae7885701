"""Keeps children running and prints what they say, each line under its name.

One thread and no callbacks: `step` reads output, notices deaths and restarts. Signal handlers only
set a flag, so a request to end takes effect between two steps, never inside one.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, TextIO

from server.children import Child, has_exited, reap, request_stop, spawn

STEP_SECONDS = 0.1
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
"""Seconds before a dead child is started again: doubled at every death, up to the longest."""
STEADY_SECONDS = 60.0
"""A child that lived this long had started well: its next death counts as its first."""
STARTS_BEFORE_GIVING_UP = 3
"""While the whole is not up yet. Afterwards a child is restarted for ever."""
MAX_LINE = 64 * 1024
COLOURS = (36, 32, 33, 35, 34, 31)


class CannotStart(RuntimeError):
    """A part does not come up. The message names it; its own lines stand above."""


class Ended(Exception):
    """A signal asked for the end while something was being waited for."""


@dataclass
class _Running:
    child: Child
    process: subprocess.Popen[bytes]
    started: float
    deaths: int = 0
    restart_at: float | None = None


class Supervisor:
    """A context manager: leaving it, however, ends every child, the last tier first."""

    def __init__(self, output: TextIO = sys.stdout) -> None:
        self._output = output
        self._colour = output.isatty() and "NO_COLOR" not in os.environ
        self._selector = selectors.DefaultSelector()
        self._partial: dict[int, bytes] = {}
        self._tiers: list[list[_Running]] = []
        self._signals = 0
        self._handlers: dict[signal.Signals, Any] = {}
        self._settled = False
        self._width = 8

    def __enter__(self) -> Supervisor:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._tiers:
            self._stop_tier(self._tiers.pop())
        self._read_output(0)
        self._selector.close()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def start(self, children: Sequence[Child]) -> None:
        """Start a tier: children that need those started before, and not each other."""
        tier: list[_Running] = []
        self._tiers.append(tier)
        for child in children:
            tier.append(_Running(child, self._spawn(child), time.monotonic()))

    def wait(self, is_ready: Callable[[], bool], what: str, seconds: float) -> None:
        """Step until ready. Raises CannotStart after `seconds` or repeated deaths, and Ended."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            self.step()
            if time.monotonic() > deadline:
                raise CannotStart(f"{what} was not ready within {seconds:.0f} s")

    def run(self) -> None:
        """Keep everything running until a signal comes."""
        self._settled = True
        while not self._signals:
            self._step()

    def step(self) -> None:
        """One round while starting up. Raises Ended, CannotStart."""
        self._step()
        if self._signals:
            raise Ended

    def say(self, message: str) -> None:
        """A line of our own."""
        self._print("up", message)

    def _step(self) -> None:
        self._read_output(STEP_SECONDS)
        for running in self._all():
            if running.restart_at is None and has_exited(running.process):
                self._note_death(running)
            elif running.restart_at is not None and time.monotonic() >= running.restart_at:
                running.process = self._spawn(running.child)
                running.started, running.restart_at = time.monotonic(), None

    def _all(self) -> Iterable[_Running]:
        return [running for tier in self._tiers for running in tier]

    def _note_death(self, running: _Running) -> None:
        now, name = time.monotonic(), running.child.name
        status = _describe(reap(running.process))
        self._read_output(0)
        running.deaths = 1 if now - running.started > STEADY_SECONDS else running.deaths + 1
        if not self._settled and running.deaths >= STARTS_BEFORE_GIVING_UP:
            raise CannotStart(f"{name} ended {running.deaths} times ({status})")
        delay = min(FIRST_DELAY * 2 ** (running.deaths - 1), LONGEST_DELAY)
        running.restart_at = now + delay
        self.say(f"{name} ended ({status}); starting it again in {delay:.0f} s")

    def _stop_tier(self, tier: list[_Running]) -> None:
        """Ask all of a tier to end, wait out the grace of each, kill what is left.

        A second signal cuts the wait short.
        """
        alive = [running for running in tier if running.restart_at is None]
        asked, signals = time.monotonic(), self._signals
        for running in alive:
            request_stop(running.child, running.process)
        for running in alive:
            while not has_exited(running.process):
                hurried = self._signals > max(signals, 1)
                if hurried or time.monotonic() - asked > running.child.grace:
                    self.say(f"{running.child.name} is still there; killing it")
                    break
                self._read_output(STEP_SECONDS)
            reap(running.process)

    def _spawn(self, child: Child) -> subprocess.Popen[bytes]:
        self._width = max(self._width, len(child.name))
        reader, writer = os.pipe()
        try:
            process = spawn(child, writer)
        except OSError as error:
            os.close(reader)
            raise CannotStart(f"{child.name}: {child.argv[0]} cannot be run: {error}") from error
        finally:
            os.close(writer)
        self._selector.register(reader, selectors.EVENT_READ, child.name)
        self._partial[reader] = b""
        return process

    def _read_output(self, seconds: float) -> None:
        """Print whole lines; what is incomplete waits for its end."""
        for key, _ in self._selector.select(seconds):
            data = os.read(key.fd, MAX_LINE)
            *lines, rest = (self._partial[key.fd] + data).split(b"\n")
            if not data or len(rest) > MAX_LINE:
                lines, rest = [*lines, rest] if rest else lines, b""
            self._partial[key.fd] = rest
            for line in lines:
                self._print(key.data, line.decode(errors="replace"))
            if not data:
                self._selector.unregister(key.fd)
                os.close(key.fd)
                del self._partial[key.fd]

    def _print(self, name: str, line: str) -> None:
        label = f"{name:<{self._width}} |"
        if self._colour:
            label = f"\033[{COLOURS[sum(name.encode()) % len(COLOURS)]}m{label}\033[0m"
        try:
            print(label, line.rstrip("\r"), file=self._output, flush=True)
        except BrokenPipeError:  # whoever read our output is gone: end as on a signal
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._output.fileno())
            self._signals += 1


def _describe(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
