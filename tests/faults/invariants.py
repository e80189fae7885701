"""What must hold after every run, whatever was done to it: checked in database, storage, processes.

`check` waits a moment for what is still on its way (a trainer that is being killed, a folder that
is being removed) and returns what is wrong all the same, in words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import psutil
from sqlalchemy import select

from core.errors import LuthierError
from core.storage import ObjectStore
from models import attempts, leases, orphans
from models.attempts import Attempt
from models.checkpoints import Checkpoint
from models.db import Session, transaction
from models.events import Event
from models.files import File
from models.jobs import Job
from models.metrics import Metric
from models.registry import FineTunedModel
from models.state import NEXT, TERMINAL, Desired, Status
from models.validations import PENDING, Validation
from tests.faults.fleet import LEASE_SECONDS, Fleet
from worker.context import Context
from worker.reconcilers import orphans as orphan_cleaning
from worker.scratch import is_over

SETTLE_SECONDS = 30.0


def assert_invariants(fleet: Fleet) -> None:
    violations = check(fleet)
    assert not violations, "\n".join(violations)


def check(fleet: Fleet, seconds: float = SETTLE_SECONDS) -> list[str]:
    """Everything that is wrong, in words; empty when all is well."""
    found = [*_settled(lambda: list(_processes(fleet)), seconds)]
    found += _settled(lambda: list(_scratch(fleet)), seconds)
    with transaction(fleet.engine) as session:
        for validation in session.scalars(select(Validation).order_by(Validation.id)):
            found += [f"{validation.id}: {wrong}" for wrong in _validation(validation)]
        for job in session.scalars(select(Job).order_by(Job.id)):
            found += [f"{job.id}: {wrong}" for wrong in _job(session, job)]
        found += _artifacts(session, fleet.store)
    # What is listed may be cleaned away before it is asked about, so asked again.
    found += _settled(lambda: list(_storage(fleet)), seconds)
    return found


def _settled(probe: Callable[[], list[str]], seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    while (wrong := probe()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return wrong


def _validation(validation: Validation) -> Iterator[str]:
    """It has ended, and its end says what was found or what was wrong."""
    if validation.status in PENDING:
        yield f"it never ended: {validation.status}"
    elif validation.worker_id or validation.lease_expires_at or validation.finished_at is None:
        yield f"{validation.status} without an end, or with a holder"
    elif (validation.training is None) == (validation.error is None):
        yield f"{validation.status} with neither data nor an error, or with both"


def _job(session: Session, job: Job) -> Iterator[str]:
    yield from _claimable(session, job)
    yield from _attempts(job, attempts.listing(session, job.id))
    yield from _story(session, job)
    yield from _series(session, job)


def _claimable(session: Session, job: Job) -> Iterator[str]:
    """Terminal, resting at its user's wish, or such that somebody takes it up by itself."""
    now = orphans.now(session)
    if job.status in TERMINAL:
        if job.finished_at is None or job.worker_id or job.lease_expires_at:
            yield f"{job.status} without an end, or with a holder"
        return
    leased = job.lease_expires_at is not None
    if leased and job.lease_expires_at > now + timedelta(seconds=LEASE_SECONDS + 1):
        yield f"its lease runs for longer than a lease: {job.lease_expires_at}"
    match job.status:
        case Status.RUNNING if not leased or not job.worker_id:
            yield "running without a lease: nobody would ever take it back"
        case Status.QUEUED | Status.VALIDATING if job.desired != Desired.RUN:
            yield f"{job.status}, yet {job.desired} is wanted: nobody would ever claim it"
        case Status.PAUSED if job.desired != Desired.PAUSE:
            yield f"paused, yet {job.desired} is wanted"
        case _:
            pass
    longest = timedelta(seconds=leases.LONGEST_BACKOFF_SECONDS + 1)
    if job.not_before is not None and job.not_before > now + longest:
        yield f"not claimable before {job.not_before}"


def _attempts(job: Job, tried: list[Attempt]) -> Iterator[str]:
    """Fences rise with time, and nobody held the job while another did."""
    for before, after in pairwise(tried):
        if before.ended_at is None:
            yield f"attempt {before.fence} never ended, yet {after.fence} began"
        elif before.ended_at > after.started_at:
            yield f"attempts {before.fence} and {after.fence} overlap"
    if tried and tried[-1].fence > job.fence:
        yield f"its fence fell from {tried[-1].fence} to {job.fence}"
    if len(tried) != job.attempts:
        yield f"{len(tried)} attempts are written down, {job.attempts} counted"
    is_open = bool(tried) and tried[-1].ended_at is None
    if is_open != (job.status == Status.RUNNING):
        yield f"it is {job.status}, and its last attempt {'is open' if is_open else 'has ended'}"


def _story(session: Session, job: Job) -> Iterator[str]:
    """Its events tell legal moves that end in its status, and at most one terminal one."""
    told = list(
        session.scalars(select(Event).where(Event.job_id == job.id).order_by(Event.position))
    )
    states = [Status(event.data["status"]) for event in told if "status" in event.data]
    path = [Status.VALIDATING, *states]
    for before, after in pairwise(path):
        if after not in NEXT[before]:
            yield f"its events tell of a move from {before} to {after}"
    if path[-1] != job.status:
        yield f"its events end with {path[-1]}, its status is {job.status}"
    ends = [state for state in states if state in TERMINAL]
    if len(ends) > 1:
        yield f"it ended more than once: {ends}"
    fences = [event.data["fence"] for event in told if "status" in event.data]
    if fences != sorted(fences):
        yield f"the fences of its events fall: {fences}"
    steps = [event.data["step"] for event in told if "train_loss" in event.data]
    if steps != sorted(set(steps)):
        yield f"its events tell of steps twice or out of order: {steps}"


def _series(session: Session, job: Job) -> Iterator[str]:
    """Each step once from the first on, and all of them once it has succeeded."""
    steps = list(
        session.scalars(
            select(Metric.step)
            .where(Metric.job_id == job.id, Metric.split == "train")
            .order_by(Metric.step)
        )
    )
    if steps != list(range(1, len(steps) + 1)):
        missing = sorted(set(range(1, max(steps) + 1)) - set(steps))
        yield f"its series lacks the steps {missing}"
    if job.status == Status.SUCCEEDED:
        assert job.resolved is not None
        if len(steps) != job.resolved["total_steps"]:
            yield f"its series has {len(steps)} of {job.resolved['total_steps']} steps"


def _artifacts(session: Session, store: ObjectStore) -> Iterator[str]:
    """What is published is there, byte for byte."""
    for table in (Checkpoint, FineTunedModel):
        for row in session.scalars(select(table).where(table.deleted_at.is_(None))):
            for file in row.files:
                yield from _intact(store, row.id, f"{row.prefix}/{file['path']}", file["sha256"])
    brought = File.sha256 != ""
    for row in session.scalars(select(File).where(File.deleted_at.is_(None), brought)):
        if row.status == "uploaded" and row.validation_id is not None:
            yield f"{row.id}: its check has ended, and it is still {row.status}"
        yield from _intact(store, row.id, row.storage_key, row.sha256)


def _intact(store: ObjectStore, owner: str, key: str, sha256: str) -> Iterator[str]:
    try:
        store.verify(key, sha256=sha256)
    except LuthierError as error:
        yield f"{owner}: {error}"


def _processes(fleet: Fleet) -> Iterator[str]:
    """No process without its parent; no trainer without a worker, none too many."""
    ours: set[int] = set()
    for root in fleet.running():
        ours |= {root.pid, *(child.pid for child in root.children(recursive=True))}
    for process in psutil.process_iter():
        try:
            below = Path(process.cwd()).is_relative_to(fleet.folder)
            if below and process.pid not in ours and process.status() != psutil.STATUS_ZOMBIE:
                yield f"orphaned process {process.pid}: {' '.join(process.cmdline())}"
        except psutil.Error:
            continue
    for worker in fleet.alive("worker"):
        if len(worker.trainers()) > 2:
            yield f"{worker.name} has {len(worker.trainers())} trainers"


def _scratch(fleet: Fleet) -> Iterator[str]:
    """Living machines keep no folder of an attempt that is over, and no half a download."""
    for process in [*fleet.alive("worker"), *fleet.alive("control")]:
        scratch = process.data_dir / "worker"
        for folder in [*scratch.glob("jobs/*"), *scratch.glob("validation/*")]:
            with transaction(fleet.engine) as session:
                if is_over(session, folder):
                    yield f"{process.name} keeps {folder.name}, which is over"
        if process.name.startswith("worker") and not list(scratch.glob("jobs/*")):
            yield from (f"{process.name} keeps {part}" for part in scratch.rglob("*.part"))


def _storage(fleet: Fleet) -> Iterator[str]:
    """All that nothing refers to is what cleaning takes, and cleaning takes nothing else."""
    with transaction(fleet.engine) as session:
        if any(session.scalars(select(Job.id).where(Job.status.in_(leases.LEASED)))):
            return  # Their attempts write under way.
    context = Context.open(fleet.settings.model_copy(update={"orphan_seconds": -1.0}))
    orphan_cleaning.reconcile(context)
    context.engine.dispose()
    keys = [key for prefix in orphans.PREFIXES for key in fleet.store.keys(prefix)]
    with transaction(fleet.engine) as session:
        yield from (f"nothing refers to {key}" for key in orphans.among(session, keys))
        yield from _artifacts(session, fleet.store)
    storage = fleet.folder / "storage"
    if storage.exists():
        yield from (f"half-written: {path}" for path in storage.rglob("*#[0-9]*"))
