"""A job's stream: server-sent events for everybody who follows it.

Followers of one job share what is read for them: however many wait at the same cursor, one
query answers all. A follower that reads slowly holds up nobody, and no more than one page waits
for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.sse import format_sse_event

from api.context import Context
from api.routes.jobs import shaped
from api.shapes.job_records import job_event, metric_point
from core.errors import LuthierError
from models import follow
from models.follow import Cursor

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_SECONDS = 10.0
"""A comment is sent after so long a silence; and the tables are asked, should a notice be lost."""
LONGEST_SECONDS = 3600.0
"""Then the stream ends, the client comes back with its cursor, and its key is looked at again."""
RECONNECT_SECONDS = 1.0
MOST_READINGS = 16
"""Pages of one job that are kept for followers to come: of a job that has ended no notice clears
them, and a long series has thousands."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """What one reading gives to all who waited at its cursor."""

    messages: bytes
    cursor: Cursor
    job: str
    """The job, as JSON."""
    more: bool
    ended: bool


class Feed:
    """One job, as its followers in this process see it."""

    def __init__(self, context: Context, project_id: str, job_id: str) -> None:
        self._context = context
        self._project_id = project_id
        self._job_id = job_id
        self._readings: dict[Cursor, asyncio.Task[Batch]] = {}
        self.changed = asyncio.Event()
        self.followers = 0

    def wake(self) -> None:
        """Something was written: what was read before may be old."""
        self._readings.clear()
        self.changed.set()
        self.changed = asyncio.Event()

    async def read(self, cursor: Cursor) -> Batch:
        """What lies beyond the cursor, read once for all who ask before the next notice."""
        reading = self._readings.get(cursor)
        if reading is None or (reading.done() and reading.exception() is not None):
            reading = self._readings[cursor] = asyncio.create_task(self._read(cursor))
            if len(self._readings) > MOST_READINGS:
                del self._readings[next(iter(self._readings))]
        # A follower that leaves must not end the reading for the others.
        return await asyncio.shield(reading)

    async def _read(self, cursor: Cursor) -> Batch:
        async with self._context.transaction() as db:
            news = await db(follow.since, self._project_id, self._job_id, cursor)
            job = (await shaped(db, [news.job]))[0]
        messages = [
            format_sse_event(event=name, id=str(at), data_str=shape.model_dump_json())
            for name, at, shape in (
                *(("metrics", at, metric_point(row)) for at, row in news.points),
                *(("event", at, job_event(row)) for at, row in news.events),
            )
        ]
        return Batch(
            b"".join(messages),
            news.cursor or cursor,
            job.model_dump_json(),
            news.more,
            news.ended,
        )


class Feeds:
    """The followed jobs of this process, and the one line on which notices come."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._feeds: dict[str, Feed] = {}
        self._listening: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def follow(self, project_id: str, job_id: str, cursor: Cursor) -> AsyncIterator[bytes]:
        """The stream's bytes: `metrics` and `event` messages that carry the cursor as their id,
        `job` after what came together or when it differs from the last, `end` when it has ended."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        feed = self._feeds.setdefault(job_id, Feed(self._context, project_id, job_id))
        feed.followers += 1
        try:
            async for chunk in self._messages(feed, cursor):
                yield chunk
        finally:
            feed.followers -= 1
            if not feed.followers:
                self._feeds.pop(job_id, None)

    async def _messages(self, feed: Feed, cursor: Cursor) -> AsyncIterator[bytes]:
        began = sent = time.monotonic()
        told = ""
        yield format_sse_event(comment="", retry=int(RECONNECT_SECONDS * 1000))
        while not self._closing.is_set() and time.monotonic() - began < LONGEST_SECONDS:
            changed = feed.changed
            try:
                batch = await feed.read(cursor)
            except LuthierError as error:
                log.warning("a stream ends, its follower comes back: %s", error)
                return
            cursor = batch.cursor
            messages = batch.messages
            if messages or batch.job != told:
                told = batch.job
                messages += format_sse_event(event="job", data_str=told)
            if batch.ended:
                yield messages + format_sse_event(event="end", data_str=told)
                return
            if not messages and time.monotonic() - sent >= HEARTBEAT_SECONDS:
                messages = format_sse_event(comment="")
            if messages:
                yield messages
                sent = time.monotonic()
            if not batch.more and not await self._news(changed):
                feed.wake()

    async def _news(self, changed: asyncio.Event) -> bool:
        """Wait for a notice; False after a long silence."""
        waits = [asyncio.create_task(event.wait()) for event in (changed, self._closing)]
        try:
            done, _ = await asyncio.wait(
                waits, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for wait in waits:
                wait.cancel()
        return bool(done)

    async def _listen(self) -> None:
        while True:
            try:
                async for job_id in follow.notices(self._context.settings.require_database_url()):
                    for feed in [self._feeds.get(job_id)] if job_id else [*self._feeds.values()]:
                        if feed is not None:
                            feed.wake()
            except OSError as error:
                log.warning("notices of jobs are late: %s", error)
            await asyncio.sleep(RECONNECT_SECONDS)

    def close(self) -> None:
        """End every stream; its follower comes back to another server."""
        self._closing.set()
        for feed in self._feeds.values():
            feed.wake()

    async def stop(self) -> None:
        self.close()
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listening


async def _feeds(request: Request) -> Feeds:
    return cast(Feeds, request.app.state.feeds)


Followed = Annotated[Feeds, Depends(_feeds)]
