"""Rings after a commit, from a thread of its own, so that no answer ever waits for the broker.

A ring that is lost costs a few seconds, since the reconciler rings again; so with a broker that is
frozen the line of waiting rings is bounded, and what comes beyond it is dropped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from core.doorbell import CONTROL_QUEUE, Doorbell
from core.settings import Settings

MOST_WAITING = 1000

log = logging.getLogger(__name__)


class Ringer:
    """The doorbell, rung in the background, in order."""

    def __init__(self, settings: Settings) -> None:
        self._bell = Doorbell(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ring")
        self._room = threading.BoundedSemaphore(MOST_WAITING)

    def validate(self, job_id: str) -> None:
        self._ring(lambda: self._bell.validate(job_id))

    def train(self, requires: list[str]) -> None:
        self._ring(lambda: self._bell.train(requires))

    def check(self) -> None:
        """Ask the broker something. Blocks; raises kombu's OperationalError when it is away."""
        self._bell.pending(CONTROL_QUEUE)

    def close(self) -> None:
        """Drop what waits. A ring on its way ends by its time-out."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._bell.close()

    def _ring(self, ring: Callable[[], bool]) -> None:
        if not self._room.acquire(blocking=False):
            log.warning("ring dropped: %d wait already; the reconciler will ring", MOST_WAITING)
            return
        self._thread.submit(ring).add_done_callback(self._rang)

    def _rang(self, ring: Future[bool]) -> None:
        self._room.release()
        if not ring.cancelled() and (error := ring.exception()) is not None:
            log.error("ring failed", exc_info=error)
