"""How long is waited for what may hang: an object storage, a hub, a child.

A call into a store that has fallen silent cannot be broken off. So it is made in a thread of its
own, and left to itself once nobody wants it any more: what it writes later its fence refuses, and
to what it stores nothing refers.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from models.state import Desired
from worker.context import Context
from worker.lease import Lease

T = TypeVar("T")

POLL_SECONDS = 0.1
LEAVE_SECONDS = 1.0
"""What work gets to end by itself before it is left."""
NOW_SECONDS = 3.0
"""How long a job that is to stop at once waits for its storage all the same."""


class GivenUp(Exception):
    """The storage did not take in time what a job that is to stop would have left there."""


class ShuttingDown(Exception):
    """The worker is to end: what it holds goes to others."""


def while_wanted(work: Callable[[], T], check: Callable[[], None]) -> T:
    """What `work` gives, done in a thread of its own; or what `check` raises, asked now and again.

    Who works may ask the same `check`, and so end by itself.
    """
    future: Future[T] = Future()
    surroundings = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(surroundings.run(work))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, name="wanted", daemon=True).start()
    try:
        while not future.done():
            check()
            wait([future], POLL_SECONDS)
    except Exception:
        wait([future], LEAVE_SECONDS)
        if not future.done():
            raise
    return future.result()


def holding(context: Context, lease: Lease) -> Callable[[], None]:
    """A check for what a control worker does under a lease: raises LeaseLost or ShuttingDown."""

    def check() -> None:
        lease.check()
        if context.stopping.is_set():
            raise ShuttingDown

    return check


class Wait:
    """One wait of an attempt for the object storage. It has no end while the job is wanted here.

    When the job is to stop, it gets `seconds` in which no byte moves, a few in all where it is to
    stop at once, and never more than the worker's grace allows. Once given up, it is so for good.
    """

    def __init__(self, context: Context, lease: Lease, seconds: float) -> None:
        self.lease = lease
        self._context = context
        self._seconds = seconds
        self._since: float | None = None
        self._moved = 0.0
        self._given_up = False

    def require(self) -> None:
        """For who works: raises LeaseLost, or GivenUp if the one that waits has given up."""
        self.lease.check()
        if self._given_up:
            raise GivenUp

    def moved(self) -> None:
        """For who works: some more of it is done."""
        self._moved = time.monotonic()

    def check(self) -> None:
        """For who waits: raises the same, and GivenUp as soon as the time is up."""
        self.require()
        wish = self.lease.wish
        wanted = wish.desired is Desired.RUN
        if wanted and not self._context.stopping.is_set():
            self._since = None
            return
        now = time.monotonic()
        self._since = self._since or now
        if not wanted and wish.stop_mode == "now":
            until = self._since + min(self._seconds, NOW_SECONDS)
        else:
            until = max(self._since, self._moved) + self._seconds
        if now > min(until, self._context.leaves_at):
            self._given_up = True
            raise GivenUp
