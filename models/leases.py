"""Leases: who works on a job, and until when, by the database's clock.

Every write of a worker goes through `hold`, which locks the job's row if the fence is still the
worker's and the job still in its hands. So a worker that was frozen, cut off or replaced cannot
write, however late it comes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from core.errors import LuthierError
from models import attempts, transitions
from models.attempts import Attempt
from models.checkpoints import Checkpoint
from models.jobs import Job
from models.state import Desired, Status
from models.validations import PENDING, Validation

POISON_AFTER = 3
"""Crashes in a row without a new checkpoint after which a job is not tried again."""

CRASHES = frozenset({"lease_expired", "worker_died", "trainer_crashed", "stop_timeout", "internal"})
"""Outcomes of which the job itself may be the cause. All others are surely the machine's: they are
waited out, up to the cap on a job's interruptions."""

CODES = {
    "lease_expired": "worker_lost",
    "worker_died": "worker_lost",
    "trainer_crashed": "internal",
    "stop_timeout": "internal",
    "storage_object_missing": "storage_unavailable",
    "storage_object_corrupt": "storage_unavailable",
}
"""What a job's error is called whose last attempt ended so, where the names differ."""

LEASED = (Status.RUNNING, Status.VALIDATING)
"""The states in which somebody holds a lease."""

LONGEST_BACKOFF_SECONDS = 300.0


class LeaseLost(LuthierError):
    """The job is no longer this worker's: stop at once, write nothing."""

    code = "lease_lost"


@dataclass(frozen=True)
class Wish:
    """What the user wants of the job, as a heartbeat's answer carries it."""

    desired: Desired
    stop_mode: str


def _ready(status: Status) -> Select[Job]:
    return select(Job).where(
        Job.status == status,
        Job.desired == Desired.RUN,
        or_(Job.not_before.is_(None), Job.not_before <= func.now()),
    )


def claim_training(
    session: Session, worker_id: str, capabilities: list[str], lease_seconds: float
) -> Job | None:
    """Take the best claimable job: priority, then the project with the fewest running, then age:
    a job that comes back to the queue has its old place.

    Two workers never take the same one: the row is locked while it is taken, and a locked row is
    skipped. None when nothing fits.
    """
    other = aliased(Job)
    running_in_project = (
        select(func.count())
        .where(other.project_id == Job.project_id, other.status == Status.RUNNING)
        .scalar_subquery()
    )
    candidate = session.scalar(
        _ready(Status.QUEUED)
        .where(Job.requires.contained_by(capabilities))
        .order_by(Job.priority.desc(), running_in_project, Job.created_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Job)
    )
    if candidate is None:
        return None
    fence = candidate.fence + 1
    job = transitions.apply(
        session,
        candidate.id,
        Status.RUNNING,
        fence=candidate.fence,
        new_fence=fence,
        worker_id=worker_id,
        lease_expires_at=func.now() + timedelta(seconds=lease_seconds),
        attempts=Job.attempts + 1,
        started_at=func.coalesce(Job.started_at, func.now()),
        phase="starting",
        estimated_finish=_expected_finish(candidate),
        data={"worker_id": worker_id},
    )
    ready_at = max(filter(None, (candidate.queued_at, candidate.not_before)), default=None)
    attempts.begin(session, candidate.id, fence, worker_id, ready_at=ready_at)
    return job


def _expected_finish(job: Job) -> Any:
    """Until its worker knows better, what a job was thought to take, less what is done of it."""
    if job.predicted is None:
        return None
    done = (job.progress or {}).get("percent", 0.0) / 100
    return func.now() + timedelta(seconds=job.predicted["seconds"] * (1 - done))


def claim_admission(
    session: Session, worker_id: str, lease_seconds: float, job_id: str
) -> Job | None:
    """Take a job whose validation has ended, to queue it or to end it; None if it is not one.

    The claim counts as a failure until it has ended, so that it is not tried for ever.
    """
    statement = _ready(Status.VALIDATING).where(
        Job.id == job_id,
        or_(Job.lease_expires_at.is_(None), Job.lease_expires_at < func.now()),
        select(Validation.id)
        .where(Validation.id == Job.validation_id, Validation.status.not_in(PENDING))
        .exists(),
    )
    job = session.scalar(statement.with_for_update(skip_locked=True))
    if job is not None:
        job.fence += 1
        job.worker_id = worker_id
        job.failures_without_progress += 1
        session.execute(
            update(Job)
            .where(Job.id == job.id)
            .values(lease_expires_at=func.now() + timedelta(seconds=lease_seconds))
        )
        session.flush()
    return job


def drop_admission(session: Session, job_id: str, fence: int) -> None:
    """End an admission that broke for no fault of the user's; another claim follows later."""
    job = hold(session, job_id, fence)
    wait = min(LONGEST_BACKOFF_SECONDS, 2.0 ** min(job.failures, 10))
    session.execute(
        update(Job)
        .where(Job.id == job.id)
        .values(
            lease_expires_at=None,
            worker_id=None,
            failures_without_progress=Job.failures_without_progress - 1,
            failures=Job.failures + 1,
            not_before=func.now() + timedelta(seconds=wait),
        )
    )


def give_back_admission(session: Session, job_id: str, fence: int) -> None:
    """Hand an admission back in order, as on a deploy: it is claimable at once, at no cost."""
    job = hold(session, job_id, fence)
    job.fence += 1  # or a late heartbeat would take the lease anew
    job.worker_id = job.lease_expires_at = None
    job.failures_without_progress -= 1


def hold(session: Session, job_id: str, fence: int) -> Job:
    """Lock the job for a write of its holder. Raises LeaseLost if it is the holder no more."""
    job = session.scalar(
        select(Job)
        .where(
            Job.id == job_id,
            Job.fence == fence,
            Job.status.in_(LEASED),
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if job is None:
        raise LeaseLost(f"The lease of {job_id} at fence {fence} is lost.")
    return job


def is_over(session: Session, job_id: str, fence: int) -> bool:
    """Whether an attempt has ended, or been ended. An expired lease alone does not end it."""
    statement = select(Job.id).where(
        Job.id == job_id, Job.fence == fence, Job.status.in_(LEASED), Job.worker_id.is_not(None)
    )
    return session.scalar(statement) is None


def renew(session: Session, job_id: str, fence: int, lease_seconds: float) -> Wish:
    """The heartbeat: extend the lease and learn what the user wants. Raises LeaseLost."""
    row = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.fence == fence, Job.status.in_(LEASED))
        .values(lease_expires_at=func.now() + timedelta(seconds=lease_seconds))
        .returning(Job.desired, Job.stop_mode)
    ).first()
    if row is None:
        raise LeaseLost(f"The lease of {job_id} at fence {fence} is lost.")
    return Wish(Desired(row.desired), row.stop_mode)


def end(session: Session, job_id: str, fence: int, to: Status, outcome: str, **values: Any) -> Job:
    """The holder's last write: leave `running` (or `validating_files`). Raises LeaseLost."""
    job = transitions.apply(session, job_id, to, fence=fence, **values)
    if job is None:
        raise LeaseLost(f"The lease of {job_id} at fence {fence} is lost.")
    attempts.end(session, job_id, fence, outcome, values.get("message"))
    return job


def give_back(session: Session, job_id: str, fence: int, reason: str) -> Job:
    """Hand a running job back in order, as on a deploy: it is claimable at once, at no cost."""
    job = hold(session, job_id, fence)
    if job.desired != Desired.RUN:
        return settle(session, job, "returned")
    return end(session, job_id, fence, Status.QUEUED, "returned", message=reason, not_before=None)


def lose(session: Session, job: Job, outcome: str, reason: str, max_failures: int) -> Job:
    """An attempt broke for no fault of the user's. The caller has locked the job's row.

    The job is queued again after a back-off that doubles, unless `POISON_AFTER` attempts in a row
    crashed without a new checkpoint of theirs (`poison`) or it broke `max_failures` times in all.
    """
    if job.desired != Desired.RUN:
        return settle(session, job, outcome)
    failures, in_all = _failures(session, job, outcome)
    ended_as = _ended_as(failures, in_all, outcome, reason, max_failures)
    if ended_as is not None:
        code, message = ended_as
        return end(
            session,
            job.id,
            job.fence,
            Status.FAILED,
            outcome,
            message=message,
            failures=in_all,
            failures_without_progress=failures,
            error={"code": code, "message": message, "param": None},
        )
    # A crash may have been chance, so the first retry comes at once; an outage takes its time.
    crashed = outcome in CRASHES
    doublings = failures - 1 if crashed else _repeated(session, job.id, outcome) + 1
    wait = min(LONGEST_BACKOFF_SECONDS, 2.0 ** max(0, doublings) - 1)
    return end(
        session,
        job.id,
        job.fence,
        Status.QUEUED,
        outcome,
        message=f"{reason} The job is queued again (interruption {in_all}).",
        level="warn",
        failures=in_all,
        failures_without_progress=failures,
        not_before=func.now() + timedelta(seconds=wait),
    )


def fate(session: Session, job: Job, outcome: str, max_failures: int) -> Status:
    """What `lose` would make of the job. The caller has locked its row."""
    if job.desired != Desired.RUN:
        return _settled(job)
    failures, in_all = _failures(session, job, outcome)
    over = _ended_as(failures, in_all, outcome, "", max_failures) is not None
    return Status.FAILED if over else Status.QUEUED


def _failures(session: Session, job: Job, outcome: str) -> tuple[int, int]:
    """With this one: crashes in a row without a new checkpoint, and interruptions in all."""
    crashed = outcome in CRASHES
    if crashed and _made_progress(session, job):
        return 0, job.failures + 1
    return job.failures_without_progress + crashed, job.failures + 1


def _ended_as(
    failures: int, in_all: int, outcome: str, reason: str, max_failures: int
) -> tuple[str, str] | None:
    """The code and the message of a job that is given up; None if it is tried again."""
    if outcome in CRASHES and failures >= POISON_AFTER:
        return (
            "poison",
            f"{failures} attempts in a row ended without a new checkpoint; the last: {reason} "
            "The job will not be tried again. Look at its logs, then submit it anew, perhaps "
            "with a smaller batch or more frequent checkpoints (`checkpoint_every`).",
        )
    if in_all >= max_failures:
        return (
            CODES.get(outcome, outcome),
            f"The job was interrupted {in_all} times; the last: {reason} Its checkpoints "
            "are kept. Ask the administrator for the workers' logs, then submit it anew.",
        )
    return None


def _made_progress(session: Session, job: Job) -> bool:
    """Whether the attempt under way has published a checkpoint."""
    made = select(Checkpoint.id).where(Checkpoint.job_id == job.id, Checkpoint.fence == job.fence)
    return session.scalar(made.limit(1)) is not None


def _repeated(session: Session, job_id: str, outcome: str) -> int:
    """How many attempts ended so since the newest checkpoint."""
    newest = select(func.coalesce(func.max(Checkpoint.fence), 0)).where(Checkpoint.job_id == job_id)
    statement = select(func.count()).where(
        Attempt.job_id == job_id,
        Attempt.outcome == outcome,
        Attempt.fence > newest.scalar_subquery(),
    )
    return session.scalars(statement).one()


def settle(session: Session, job: Job, outcome: str) -> Job:
    """End a running job that its user has asked to pause or cancel."""
    return end(session, job.id, job.fence, _settled(job), outcome)


def _settled(job: Job) -> Status:
    return Status.CANCELLED if job.desired == Desired.CANCEL else Status.PAUSED


def reap(session: Session, max_failures: int, limit: int = 100) -> list[str]:
    """Take back running jobs whose lease has run out. Safe to run twice, or at the same time."""
    expired = session.scalars(
        select(Job)
        .where(Job.status == Status.RUNNING, Job.lease_expires_at < func.now())
        .order_by(Job.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    reaped = []
    for job in expired:
        reason = f"Worker {job.worker_id} was not heard from any more."
        lose(session, job, "lease_expired", reason, max_failures)
        reaped.append(job.id)
    return reaped


def waiting(session: Session) -> dict[tuple[str, ...], int]:
    """How many jobs could be claimed at this moment, by the capabilities that they require."""
    queued = _ready(Status.QUEUED).with_only_columns(Job.requires, func.count())
    counts = session.execute(queued.group_by(Job.requires))
    return {tuple(requires): count for requires, count in counts}
