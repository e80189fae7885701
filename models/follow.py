"""Following a job: what is new since a follower's cursor, and notices that there may be something.

The tables are the truth. A notice (PostgreSQL's NOTIFY, sent by triggers in the transaction that
writes) says only that it is worth asking; a lost one costs a delay.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import psycopg
from sqlalchemy import make_url, select
from sqlalchemy.orm import Session

from core.errors import InvalidRequest
from models import jobs
from models.events import Event
from models.jobs import Job
from models.metrics import SPLITS, Metric, beyond
from models.state import TERMINAL

CHANNEL = "luthier_jobs"
"""The triggers' (migration 0005): each notice's payload is a job's id."""
PAGE = 500
"""Rows of a kind that are read at once: a follower's memory does not grow with the series."""

_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})([tv])")


@dataclass(frozen=True)
class Cursor:
    """What a follower has seen: the last event's position, the last point's step and split.

    A series only grows at its end: a resumed run drops the points beyond its checkpoint and
    computes equal ones, so that a step which was seen need not be seen again.
    """

    event: int = 0
    step: int = 0
    split: str = "train"

    def __str__(self) -> str:
        return f"{self.event}.{self.step}{self.split[0]}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises InvalidRequest."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise InvalidRequest(
                f"{text!r} is no id of this stream. Send the `id` of the last message that came, "
                "or leave the header out to begin at the beginning.",
                param="Last-Event-ID",
            )
        return cls(int(found[1]), int(found[2]), "train" if found[3] == "t" else "valid")


@dataclass(frozen=True)
class News:
    """Points and events beyond a cursor, oldest first, and the job as it was before they were read:
    once it has ended, what comes with it is all there is."""

    job: Job
    points: list[tuple[Cursor, Metric]]
    events: list[tuple[Cursor, Event]]
    more: bool
    """Whether there is more to be read at once."""

    @property
    def cursor(self) -> Cursor | None:
        """Where to go on; None if nothing is new."""
        seen = self.events or self.points
        return seen[-1][0] if seen else None

    @property
    def ended(self) -> bool:
        return self.job.status in TERMINAL and not self.more


def since(session: Session, project_id: str, job_id: str, cursor: Cursor) -> News:
    """What lies beyond the cursor. Raises NotFound."""
    job = jobs.get(session, project_id, job_id)
    # At the cursor's own step, the splits after its own are still to come.
    after = {split: cursor.step - (split > cursor.split) for split in SPLITS}
    points = beyond(session, job_id, after, limit=PAGE)
    events = list(
        session.scalars(
            select(Event)
            .where(Event.job_id == job_id, Event.position > cursor.event)
            .order_by(Event.position)
            .limit(PAGE)
        )
    )
    told_points, told_events = [], []
    for point in points:
        cursor = replace(cursor, step=point.step, split=point.split)
        told_points.append((cursor, point))
    for event in events:
        cursor = replace(cursor, event=event.position)
        told_events.append((cursor, event))
    return News(job, told_points, told_events, more=PAGE in (len(points), len(events)))


async def notices(database_url: str) -> AsyncIterator[str]:
    """The ids of jobs of which something was written, from the moment of the first one, which is
    empty: it says that the line is open. Raises ConnectionError when it breaks."""
    plain = make_url(database_url).set(drivername="postgresql")
    try:
        connection = await psycopg.AsyncConnection.connect(
            plain.render_as_string(hide_password=False),
            autocommit=True,
            connect_timeout=5,
            keepalives_idle=5,
            keepalives_interval=3,
            keepalives_count=3,
        )
        async with connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            yield ""
            async for notice in connection.notifies():
                yield notice.payload
    except psycopg.Error as error:
        raise ConnectionError(str(error)) from error
