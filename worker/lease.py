"""The heartbeat: keeps the lease of a claimed job or validation, learns what the user wants,
notices its loss."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from models import leases
from models.db import Disconnected, Session
from models.leases import LeaseLost, Wish
from models.state import Desired
from worker.context import Context

T = TypeVar("T")

RETRY_SECONDS = 1.0
JOIN_SECONDS = 5.0
"""A heartbeat that hangs in a dead connection is not waited for longer."""

log = logging.getLogger(__name__)


class Lease:
    """Renews one job's lease from a thread of its own until the block ends.

    When the lease is lost, or could not be renewed for as long as it lasts, `lost` is set and
    `on_lost` called: whatever works under the lease must stop at once. A second thread watches
    the time, since a heartbeat may hang for minutes in a connection whose other end is gone.
    """

    def __init__(
        self,
        context: Context,
        job_id: str,
        fence: int,
        on_lost: Callable[[], None],
        *,
        claimed: float,
        renew: Callable[[Session, str, int, float], Wish] = leases.renew,
    ) -> None:
        """`claimed` is the monotonic clock's time before the claim was asked for; `renew` is the
        heartbeat's query, of a validation in place of a job."""
        self.job_id = job_id
        self.fence = fence
        self.lost = threading.Event()
        self.wish = Wish(Desired.RUN, "save")
        self._context = context
        self._on_lost = on_lost
        self._renew = renew
        self._renewed = claimed
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=f"{name}-{job_id}", daemon=True)
            for name, work in (("heartbeat", self._beat), ("watch", self._watch))
        ]

    def __enter__(self) -> Lease:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def check(self) -> None:
        """Raise LeaseLost if the lease is lost."""
        if self.lost.is_set():
            raise LeaseLost(f"The lease of {self.job_id} at fence {self.fence} is lost.")

    def write(self, change: Callable[[Session], T]) -> T:
        """Run one transaction under the lease, again and again while the database is away.

        `change` must be safe to repeat: a commit may have happened though its answer was lost.
        Raises LeaseLost.
        """
        while True:
            self.check()
            try:
                with self._context.transaction() as session:
                    return change(session)
            except Disconnected as error:
                log.warning("write waits for the database: %s", error, extra=self._names())
                self.lost.wait(RETRY_SECONDS)

    def _beat(self) -> None:
        settings = self._context.settings
        while not self._ended.wait(settings.heartbeat_seconds):
            asked = time.monotonic()
            try:
                with self._context.transaction() as session:
                    self.wish = self._renew(
                        session, self.job_id, self.fence, settings.lease_seconds
                    )
                self._renewed = asked
            except LeaseLost:
                self._lose("somebody else may have it")
                return
            except Disconnected as error:
                log.warning("heartbeat failed: %s", error, extra=self._names())

    def _watch(self) -> None:
        settings = self._context.settings
        while not self._ended.wait(settings.heartbeat_seconds):
            if time.monotonic() - self._renewed > settings.lease_seconds:
                self._lose("it could not be renewed in time")
                return

    def _lose(self, why: str) -> None:
        if self._ended.is_set():
            return  # Ended by ourselves, in the transaction that this heartbeat came after.
        log.warning("lease lost: %s", why, extra=self._names())
        self.lost.set()
        self._on_lost()

    def _names(self) -> dict[str, object]:
        return {"job_id": self.job_id, "fence": self.fence}
