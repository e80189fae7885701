"""Following a job: its state, its new events and its new metric points, until it ends.

A watcher polls. What it has seen is a cursor (the last event, the last step of each split), so a
cut connection or a restarted server loses nothing and repeats nothing: the next poll that gets
through asks from the same cursor. The job is read before its events and points, so that once it
has ended, what is read after it is all there is.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import openai
from openai import omit
from openai.types.fine_tuning import FineTuningJobEvent

from luthier.types import TERMINAL, Job, MetricPage, MetricPoint, Split

if TYPE_CHECKING:
    from luthier.jobs import AsyncJobs, Jobs

SPLITS: tuple[Split, ...] = ("train", "valid")
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
EVENTS_PAGE = 100

UNREACHABLE = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError)
"""What passes by itself: no connection, a 5xx, too many requests."""


@dataclass(frozen=True)
class Interruption:
    """The server could not be asked; the watcher tries again in `retry_in` seconds."""

    message: str
    attempt: int
    retry_in: float


@dataclass(frozen=True)
class Update:
    """What is new since the update before. `events` and `points` are oldest first."""

    job: Job
    events: list[FineTuningJobEvent] = field(default_factory=list)
    points: list[MetricPoint] = field(default_factory=list)
    interruption: Interruption | None = None


class _Watcher:
    """What was seen so far, and how long the server has been out of reach."""

    def __init__(self, give_up_after: float | None) -> None:
        self.job: Job | None = None
        self.ended = False
        self.behind = False
        """Whether more points can be had at once."""
        self._last_event: str | None = None
        self._last_step: dict[str, int] = {}
        self._give_up_after = give_up_after
        self._failures = 0
        self._unreachable_since = 0.0

    def after_step(self, split: Split) -> int | openai.Omit:
        return self._last_step.get(split, omit)

    def is_new(self, event: FineTuningJobEvent) -> bool:
        return event.id != self._last_event

    def take(
        self, job: Job, events: list[FineTuningJobEvent], pages: list[MetricPage]
    ) -> Update | None:
        """Note what a poll brought (events newest first); None where nothing is new."""
        self._failures = 0
        if events:
            self._last_event = events[0].id
        points = [point for page in pages for point in page.data]
        for point in points:
            self._last_step[point.split] = point.step
        self.behind = any(page.has_more and page.data for page in pages)
        self.ended = job.status in TERMINAL and not self.behind
        before, self.job = self.job, job
        if events or points or before is None or job.to_dict() != before.to_dict():
            return Update(job, events[::-1], points)
        return None

    def fail(self, error: openai.APIError) -> tuple[Update, float]:
        """The update that says so, and the seconds until the next try.

        Raises the error in the first poll, and when patience is over.
        """
        if self.job is None:
            raise error
        now = time.monotonic()
        if self._failures == 0:
            self._unreachable_since = now
        elif (
            self._give_up_after is not None and now - self._unreachable_since > self._give_up_after
        ):
            raise error
        pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
        self._failures += 1
        interruption = Interruption(str(error), self._failures, pause)
        return Update(self.job, interruption=interruption), pause


def watch(
    jobs: Jobs, job_id: str, interval: float, give_up_after: float | None
) -> Iterator[Update]:
    """Yield an `Update` whenever something is new, the last with a state in `TERMINAL`.

    While the server is out of reach, each try yields an update with an `interruption` and waits
    longer, up to 15 s. Raises an error of the first poll, any error that waiting won't mend, and
    the last one once the server has been out of reach for `give_up_after` seconds.
    """
    watcher = _Watcher(give_up_after)
    while not watcher.ended:
        try:
            job = jobs.retrieve(job_id)
            events = []
            for event in jobs.list_events(job_id, limit=EVENTS_PAGE):
                if not watcher.is_new(event):
                    break
                events.append(event)
            pages = [
                jobs.metrics_page(job_id, split=split, after_step=watcher.after_step(split))
                for split in SPLITS
            ]
        except UNREACHABLE as error:
            update, pause = watcher.fail(error)
            yield update
            time.sleep(pause)
            continue
        if news := watcher.take(job, events, pages):
            yield news
        if not watcher.ended and not watcher.behind:
            time.sleep(interval)


async def watch_async(
    jobs: AsyncJobs, job_id: str, interval: float, give_up_after: float | None
) -> AsyncIterator[Update]:
    """`watch`, for the asynchronous client."""
    watcher = _Watcher(give_up_after)
    while not watcher.ended:
        try:
            job = await jobs.retrieve(job_id)
            events = []
            async for event in jobs.list_events(job_id, limit=EVENTS_PAGE):
                if not watcher.is_new(event):
                    break
                events.append(event)
            pages = [
                await jobs.metrics_page(job_id, split=split, after_step=watcher.after_step(split))
                for split in SPLITS
            ]
        except UNREACHABLE as error:
            update, pause = watcher.fail(error)
            yield update
            await anyio.sleep(pause)
            continue
        if news := watcher.take(job, events, pages):
            yield news
        if not watcher.ended and not watcher.behind:
            await anyio.sleep(interval)
