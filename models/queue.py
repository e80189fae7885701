"""The queue as it will go: which job starts when, if nothing unforeseen happens.

It is played through as workers claim (`models/leases.py`): whoever becomes free takes, of the jobs
that it can run, the one of the highest priority, then of the project with the fewest running, then
the oldest. How long each takes is what it was thought to take when it was queued.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models import workers
from models.jobs import Job
from models.state import Desired, Status

ALIVE_WITHIN = timedelta(seconds=35)
"""Workers report every 10 seconds."""
LOOKED_AHEAD = 2000
"""Jobs whose start is reckoned; those behind them have a place alone."""


@dataclass(frozen=True)
class Waiting:
    id: str
    project_id: str
    priority: int
    requires: frozenset[str]
    seconds: float | None
    """How long it is thought to take; None if that is not known."""


@dataclass(frozen=True)
class Slot:
    """A worker, when it becomes free, and of what project its present job is."""

    capabilities: frozenset[str]
    free_in: float | None
    """Seconds from now; None if that is not known."""
    project_id: str | None = None


@dataclass(frozen=True)
class Place:
    position: int
    """1 is the next."""
    starts_in: float | None
    """Seconds from now; None where no worker can run it, or where it hangs on a job of unknown
    length."""


def play(waiting: list[Waiting], slots: list[Slot]) -> dict[str, Place]:
    """Each job's place. `waiting` comes oldest first.

    Those that no worker can take come last.
    """
    lines: dict[tuple[str, int, frozenset[str]], deque[tuple[int, Waiting]]] = defaultdict(deque)
    for age, job in enumerate(waiting):
        lines[job.project_id, job.priority, job.requires].append((age, job))
    running = Counter(slot.project_id for slot in slots if slot.project_id is not None)
    free = [
        (slot.free_in, number, slot.project_id)
        for number, slot in enumerate(slots)
        if slot.free_in is not None
    ]
    heapq.heapify(free)
    places: dict[str, Place] = {}
    while free:
        moment, number, before = heapq.heappop(free)
        if before is not None:
            running[before] -= 1
        able = [
            (-priority, running[project], line[0][0], (project, priority, requires))
            for (project, priority, requires), line in lines.items()
            if line and requires <= slots[number].capabilities
        ]
        if not able:
            continue
        *_, key = min(able, key=lambda choice: choice[:3])
        _, job = lines[key].popleft()
        places[job.id] = Place(len(places) + 1, moment)
        running[job.project_id] += 1
        if job.seconds is not None:
            heapq.heappush(free, (moment + job.seconds, number, job.project_id))
    left = [job for job in waiting if job.id not in places]
    for job in sorted(left, key=lambda job: -job.priority):
        places[job.id] = Place(len(places) + 1, None)
    return places


def places(session: Session, rows: list[Job]) -> dict[str, tuple[int, datetime | None]]:
    """The place in the queue, and the start, of those of the jobs that are queued."""
    wanted = [job.id for job in rows if job.status == Status.QUEUED]
    if not wanted:
        return {}
    now = session.scalars(select(func.now())).one()
    played = play(_waiting(session), _slots(session, now))
    found: dict[str, tuple[int, datetime | None]] = {}
    for job_id in wanted:
        place = played.get(job_id) or Place(len(played) + 1, None)
        starts_in = place.starts_in
        start = now + timedelta(seconds=starts_in) if starts_in is not None else None
        found[job_id] = place.position, start
    return found


def _waiting(session: Session) -> list[Waiting]:
    """Of those whose turn comes first, oldest first."""
    seconds = Job.predicted["seconds"].as_float()
    done = func.coalesce(Job.progress["percent"].as_float(), 0.0) / 100
    columns = (Job.id, Job.project_id, Job.priority, Job.requires, Job.created_at)
    first = (
        select(*columns, (seconds * (1 - done)).label("seconds"))
        .where(Job.status == Status.QUEUED)
        .order_by(Job.priority.desc(), Job.created_at, Job.id)
        .limit(LOOKED_AHEAD)
        .subquery()
    )
    rows = session.execute(select(first).order_by(first.c.created_at, first.c.id))
    return [
        Waiting(row.id, row.project_id, row.priority, frozenset(row.requires), row.seconds)
        for row in rows
    ]


def _slots(session: Session, now: datetime) -> list[Slot]:
    """The workers that are alive, by when they will be free."""
    columns = (Job.worker_id, Job.project_id, Job.desired, Job.estimated_finish)
    running = session.execute(select(*columns).where(Job.status == Status.RUNNING))
    held = {job.worker_id: job for job in running}
    slots = []
    for worker in workers.alive(session, ALIVE_WITHIN):
        job = held.get(worker.id)
        free_in: float | None = 0.0
        if job is not None and job.desired == Desired.RUN:
            finish = job.estimated_finish
            free_in = max(0.0, (finish - now).total_seconds()) if finish is not None else None
        slots.append(Slot(frozenset(worker.capabilities), free_in, job.project_id if job else None))
    return slots
