"""The control worker's own threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.settings import Settings
from worker import reconcilers
from worker.app import control_app
from worker.context import Context


class Slow:
    """A reconciler that hangs, as one does whose store answers late."""

    NAME = "slow"

    def __init__(self) -> None:
        self.runs = 0
        self.begun, self.ends = threading.Event(), threading.Event()

    def every(self, settings: Settings) -> float:
        return 1.0

    def reconcile(self, context: Context) -> None:
        self.runs += 1
        self.begun.set()
        assert self.ends.wait(30)


@pytest.fixture
def context(context_with: Callable[..., Context]) -> Context:
    return context_with()


def test_ticks_of_one_that_hangs_take_no_more_threads(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow()
    monkeypatch.setattr(reconcilers, "ALL", (slow,))
    tick = control_app(context).tasks[slow.NAME]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(tick)
        try:
            assert slow.begun.wait(30)
            pool.submit(tick).result(5)
        finally:
            slow.ends.set()
        first.result(30)
    assert slow.runs == 1
    tick()
    assert slow.runs == 2
