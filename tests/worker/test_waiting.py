"""What is waited for, and for how long, when a store falls silent."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.storage import CHUNK_BYTES, StorageUnavailable
from models.leases import LeaseLost, Wish
from models.state import Desired
from worker import waiting
from worker.context import GRACE_SHARE, Context
from worker.lease import Lease
from worker.publisher import store_file
from worker.waiting import GivenUp, Wait, while_wanted

SECONDS, GRACE = 6.0, 8.0
CANCEL_NOW = Wish(Desired.CANCEL, "now")
PAUSE = Wish(Desired.PAUSE, "save")


class Unwanted(Exception):
    pass


@pytest.fixture
def context(context_with: Callable[..., Context]) -> Context:
    return context_with(grace_seconds=GRACE)


@pytest.fixture
def lease(context: Context) -> Lease:
    return Lease(context, "ftjob-x", 1, lambda: None, claimed=time.monotonic())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time is its only member."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_work_that_hangs_is_left_to_itself() -> None:
    ends, unwanted = threading.Event(), threading.Event()

    def check() -> None:
        if unwanted.is_set():
            raise Unwanted

    def work() -> None:
        unwanted.set()
        ends.wait(60)

    began = time.monotonic()
    with pytest.raises(Unwanted):
        while_wanted(work, check)
    assert time.monotonic() - began < 10
    ends.set()


def test_work_that_ends_by_itself_gives_what_it_has() -> None:
    def refused() -> None:
        raise KeyError("of the work")

    assert while_wanted(lambda: 7, lambda: None) == 7
    with pytest.raises(KeyError):
        while_wanted(refused, lambda: None)


def given_up_at(wait: Wait, clock: list[float]) -> float:
    began = clock[0]
    while clock[0] < began + 1000:
        try:
            wait.check()
        except GivenUp:
            with pytest.raises(GivenUp):
                wait.require()
            return clock[0] - began
        clock[0] += 0.1
    return float("inf")


def test_a_job_that_is_wanted_waits_for_as_long_as_it_takes(
    context: Context, lease: Lease, clock: list[float]
) -> None:
    assert given_up_at(Wait(context, lease, SECONDS), clock) == float("inf")


@pytest.mark.parametrize(("wish", "seconds"), [(CANCEL_NOW, waiting.NOW_SECONDS), (PAUSE, SECONDS)])
def test_one_that_is_to_stop_does_not(
    context: Context, lease: Lease, clock: list[float], wish: Wish, seconds: float
) -> None:
    wait = Wait(context, lease, SECONDS)
    wait.check()
    clock[0] += 500
    lease.wish = wish
    assert given_up_at(wait, clock) == pytest.approx(seconds, abs=0.3)


@pytest.mark.parametrize(
    ("wish", "seconds"), [(CANCEL_NOW, waiting.NOW_SECONDS), (PAUSE, 3 * SECONDS)]
)
def test_a_pause_waits_for_bytes_that_move(
    context: Context, lease: Lease, clock: list[float], wish: Wish, seconds: float
) -> None:
    """A large checkpoint takes its time. A job that is to stop at once has none to give."""
    wait = Wait(context, lease, SECONDS)
    lease.wish = wish
    began, given_up = clock[0], False
    while not given_up:
        if clock[0] <= began + 2 * SECONDS:
            wait.moved()
        try:
            wait.check()
        except GivenUp:
            given_up = True
        clock[0] += 0.1
    assert clock[0] - began == pytest.approx(seconds, abs=0.4)


def test_the_same_beginning_again_and_again_is_no_move(
    context: Context, lease: Lease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(3 * CHUNK_BYTES))
    wait, moves, tries = Wait(context, lease, SECONDS), 0, 0
    write_file = context.store.write_file

    def moved() -> None:
        nonlocal moves
        moves += 1

    def refused(*given: Any) -> Any:
        nonlocal tries
        tries += 1
        written = write_file(*given)
        if tries == 1:
            raise StorageUnavailable("weights")
        return written

    monkeypatch.setattr(wait, "moved", moved)
    monkeypatch.setattr(context.store, "write_file", refused)
    store_file(context, wait, path, "x/weights", hashlib.sha256(path.read_bytes()).hexdigest())
    # The file's chunks once, and the one in which it is read back.
    assert (tries, moves) == (2, 3 + 1)


def test_who_thinks_better_of_it_is_waited_for_again(
    context: Context, lease: Lease, clock: list[float]
) -> None:
    wait = Wait(context, lease, SECONDS)
    lease.wish = PAUSE
    wait.check()
    clock[0] += SECONDS - 1
    lease.wish = Wish(Desired.RUN, "save")
    wait.check()
    lease.wish = PAUSE
    assert given_up_at(wait, clock) == pytest.approx(SECONDS, abs=0.3)


@pytest.mark.parametrize("wish", [Wish(Desired.RUN, "save"), PAUSE])
def test_a_worker_that_is_to_end_keeps_within_its_grace(
    context: Context, lease: Lease, clock: list[float], wish: Wish
) -> None:
    """However late the wait begins."""
    lease.wish = wish
    context.stopping.set()
    clock[0] += GRACE / 2
    left = GRACE_SHARE * GRACE - GRACE / 2
    assert given_up_at(Wait(context, lease, SECONDS), clock) == pytest.approx(left, abs=0.3)


def test_a_lost_lease_ends_it(context: Context, lease: Lease) -> None:
    lease.lost.set()
    with pytest.raises(LeaseLost):
        Wait(context, lease, SECONDS).check()
