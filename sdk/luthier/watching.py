"""Following a job: its state, its new events and its new metric points, until it ends.

The service streams them, each message with a cursor as its id. A cut connection or a restarted
server loses nothing and repeats nothing: the next connection goes on after the last id that came.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import openai
from openai._streaming import AsyncStream, ServerSentEvent, Stream
from openai.types.fine_tuning import FineTuningJobEvent

from luthier.types import Job, MetricPoint

if TYPE_CHECKING:
    from luthier.jobs import AsyncJobs, Jobs

STREAM = "text/event-stream"
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0

UNREACHABLE = (
    openai.APIConnectionError,
    openai.InternalServerError,
    openai.RateLimitError,
    httpx2.TransportError,
)
"""What passes by itself: no connection, one that breaks, a 5xx, too many requests."""


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


class Messages(Stream[Any]):
    """The service's messages, as they come."""

    def messages(self) -> Iterator[ServerSentEvent]:
        return self._iter_events()


class AsyncMessages(AsyncStream[Any]):
    def messages(self) -> AsyncIterator[ServerSentEvent]:
        return self._iter_events()


def check(response: httpx2.Response) -> None:
    """Raises where the answer is no stream: nothing in it would ever end the watching."""
    kind = response.headers.get("content-type", "nothing")
    if not kind.startswith(STREAM):
        raise openai.OpenAIError(
            f"{response.url} answered {kind} instead of a stream. The server may be older than "
            "this client: upgrade it, or follow the job with `fine_tuning.jobs.list_events`."
        )


class _Watcher:
    """What was seen so far, and how long the server has been out of reach."""

    def __init__(self, give_up_after: float | None) -> None:
        self.job: Job | None = None
        self.last_id: str | None = None
        self.ended = False
        self._events: list[FineTuningJobEvent] = []
        self._points: list[MetricPoint] = []
        self._give_up_after = give_up_after
        self._failures = 0
        self._unreachable_since = 0.0

    def take(self, message: ServerSentEvent) -> Update | None:
        """Note one message. What came together is an update once the job that follows it is in."""
        self._failures = 0
        self.last_id = message.id or self.last_id
        match message.event:
            case "metrics":
                self._points.append(MetricPoint.construct(**json.loads(message.data)))
            case "event":
                self._events.append(FineTuningJobEvent.construct(**json.loads(message.data)))
            case "job":
                self.job = Job.construct(**json.loads(message.data))
                update = Update(self.job, self._events, self._points)
                self._events, self._points = [], []
                return update
            case "end":
                self.ended = True
        return None

    def fail(self, error: Exception) -> tuple[Update, float]:
        """The update that says so, and the seconds until the next try.

        Raises the error of the first connection, and any when patience is over.
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


def watch(jobs: Jobs, job_id: str, give_up_after: float | None) -> Iterator[Update]:
    """Yield an `Update` whenever something is new, the last with a state in `TERMINAL`.

    While the server is out of reach, each try yields an update with an `interruption` and waits
    longer, up to 15 s. Raises an error of the first connection, any error that waiting won't mend,
    and the last one once the server has been out of reach for `give_up_after` seconds.
    """
    watcher = _Watcher(give_up_after)
    while not watcher.ended:
        try:
            with jobs.stream(job_id, last_event_id=watcher.last_id) as stream:
                check(stream.response)
                for message in stream.messages():
                    if news := watcher.take(message):
                        yield news
            if not watcher.ended:  # The server ends streams when it stops, and old ones.
                time.sleep(FIRST_PAUSE)
        except UNREACHABLE as error:
            update, pause = watcher.fail(error)
            yield update
            time.sleep(pause)


async def watch_async(
    jobs: AsyncJobs, job_id: str, give_up_after: float | None
) -> AsyncIterator[Update]:
    """`watch`, for the asynchronous client."""
    watcher = _Watcher(give_up_after)
    while not watcher.ended:
        try:
            async with await jobs.stream(job_id, last_event_id=watcher.last_id) as stream:
                check(stream.response)
                async for message in stream.messages():
                    if news := watcher.take(message):
                        yield news
            if not watcher.ended:
                await anyio.sleep(FIRST_PAUSE)
        except UNREACHABLE as error:
            update, pause = watcher.fail(error)
            yield update
            await anyio.sleep(pause)
