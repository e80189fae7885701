"""The supervisor of one attempt: from a claimed job to its fenced end.

It fetches what the job needs, hands the job folder to a standby trainer, turns the trainer's
records into rows, publishes what it makes, and passes on what the user wants. Whatever happens to
the trainer, the attempt ends here in one of four ways: finished, stopped as asked, failed by the
job's own fault, or broken and to be tried again.
"""

from __future__ import annotations

import errno
import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from core.errors import DISK_FAULTS, LuthierError
from core.storage import ObjectCorrupt, ObjectMissing, StorageUnavailable
from models import attempts, events, leases, projects, registry
from models.db import Disconnected, Session
from models.jobs import Job
from models.leases import LeaseLost
from models.state import TERMINAL, Desired, Status
from worker import finish
from worker.context import Context
from worker.lease import Lease
from worker.prepare import NotWanted, job_folder, prepare
from worker.publisher import Publisher
from worker.reports import Reports
from worker.results import Results, of_ended
from worker.scratch import occupied
from worker.tracking import Tracking
from worker.trainer import Record, Standby, Trainer
from worker.waiting import GivenUp

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
EXIT_SECONDS = 20.0
"""How long a trainer may take to exit after its last record."""

RETRIED = frozenset({"disk_full", "internal"})
"""Failure codes of a trainer that are the machine's fault; all others end the job."""


STORAGE_FAULTS: dict[type[LuthierError], str] = {
    StorageUnavailable: "The object storage could not be reached.",
    ObjectMissing: "The object storage lacks what the job needs.",
    ObjectCorrupt: "The object storage gave other bytes than were stored.",
}
"""What users are told of it."""


class AttemptBroken(Exception):
    """The attempt cannot go on, for no fault of the user's."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class TimeLimit(LuthierError):
    """The job has run for as long as this server lets one run."""

    code = "time_limit"


@dataclass
class Attempt:
    """What the parts of one attempt share."""

    context: Context
    job: Job
    lease: Lease
    publisher: Publisher
    reports: Reports
    trainer: Trainer
    tracking: Tracking
    ends_at: float
    """When the job's time is up, by the monotonic clock."""
    stop_sent: float | None = None
    """When the trainer was first told to stop, by the monotonic clock."""
    stop_mode: str | None = None

    @property
    def out_of_time(self) -> bool:
        return time.monotonic() > self.ends_at


def supervise(context: Context, standby: Standby, job: Job, claimed: float) -> None:
    """Run one claimed job to the end of this attempt. Raises nothing that is the job's.

    `claimed` is the monotonic clock's time before the claim was asked for.
    """
    names = {"job_id": job.id, "fence": job.fence}
    log.info("attempt begins", extra=names)
    trainer = standby.take()
    cleanup = ExitStack()
    try:
        with Lease(context, job.id, job.fence, trainer.kill, claimed=claimed) as lease:
            try:
                standby.warm()
                folder = cleanup.enter_context(occupied(job_folder(context, job)))
                _run(context, job, trainer, lease, folder)
            except LeaseLost:
                log.warning("attempt ends: its lease is lost", extra=names)
            except Exception as error:
                log.warning("attempt broke", extra=names, exc_info=True)
                _lose(context, job, lease, trainer, *_told(error))
    finally:
        trainer.close()
        cleanup.close()
    log.info("attempt ended", extra=names)


def _told(error: Exception) -> tuple[str, str]:
    """The code and the reason of an attempt that broke on this."""
    match error:
        case AttemptBroken():
            return error.code, error.reason
        case StorageUnavailable() | ObjectMissing() | ObjectCorrupt():
            # Keys, paths and addresses of the store are the administrator's, who has the log.
            return error.error_code, STORAGE_FAULTS[type(error)]
        case LuthierError():
            return error.error_code, str(error)
        case OSError() if error.errno in (*DISK_FAULTS, errno.EFBIG):
            return "disk_full", f"The worker's disk took no more: {error.strerror}."
        case _:
            return "internal", f"The worker met an error of its own: {type(error).__name__}."


def _run(context: Context, job: Job, trainer: Trainer, lease: Lease, folder: Path) -> None:
    project_name = lease.write(lambda session: projects.name_of(session, job.project_id))
    spent = lease.write(lambda session: attempts.seconds(session, job.id))
    device = trainer.wait_ready(0)["device"]
    wants_cpu = (job.request.get("resources") or {}).get("device") == "cpu"
    try:
        with context.tracing.span("prepare"):
            prepare(context, job, lease, folder, "cpu" if wants_cpu else device)
    except NotWanted:
        reason = "Stopped before the training began. The job is queued to go on elsewhere."
        lease.write(lambda session: leases.give_back(session, job.id, job.fence, reason))
        context.doorbell.train(job.requires)  # For the workers that stay.
        return
    told = lease.write(lambda session: events.steps_told(session, job.id))
    reports = Reports(context, job, told)
    with (
        Publisher(context, job, project_name, lease) as publisher,
        Tracking(context, job, folder) as tracking,
    ):
        ends_at = time.monotonic() + context.settings.max_job_seconds - spent
        attempt = Attempt(context, job, lease, publisher, reports, trainer, tracking, ends_at)
        trainer.start(folder)
        with context.tracing.span("train"):
            try:
                last = _follow(attempt, folder)
            except AttemptBroken:
                reports.write_all(lease)  # It may be the last attempt.
                raise
        for fault in tracking.end(**_ending(attempt, last)):
            reports.tell("warn", fault, {})
        reports.note(log_tail=trainer.log_tail())
        with context.tracing.span("publish"):
            publisher.drain()
            reports.write_all(lease)
            _conclude(attempt, folder, last)


def _follow(attempt: Attempt, folder: Path) -> Record:
    """Pass records on until the one that ends the run. Raises AttemptBroken when none comes."""
    trainer, reports = attempt.trainer, attempt.reports
    while True:
        attempt.lease.check()
        _pass_on_wishes(attempt)
        for record in trainer.read(min(POLL_SECONDS, reports.due_in)):
            match record["type"]:
                case "done" | "stopped" | "failed":
                    return record
                case "checkpoint":
                    _publish(attempt, folder, record)
                case kind:
                    reports.add(record)
                    if kind == "metrics":
                        attempt.tracking.add(record)
        for fault in attempt.tracking.faults():
            reports.tell("warn", fault, {})
        try:
            reports.flush()
        except Disconnected as error:
            log.warning("records kept until the database is back: %s", error)
        if trainer.ended:
            status = trainer.wait(EXIT_SECONDS)
            attempt.lease.check()
            raise AttemptBroken("trainer_crashed", _crash(status))


def _publish(attempt: Attempt, folder: Path, record: Record) -> None:
    """Have a checkpoint published. What was measured before it is written first: a resume from it
    will not measure that again."""
    pending = attempt.publisher.keep(folder / record["path"], record)
    attempt.reports.write_all(attempt.lease)
    skipped = attempt.publisher.add(pending) if pending else [record["step"]]
    for step in skipped:
        attempt.reports.tell(
            "warn",
            f"The checkpoint of step {step} is not published: "
            "checkpoints are made faster than they can be uploaded.",
            {"step": step},
        )


def _pass_on_wishes(attempt: Attempt) -> None:
    """Tell the trainer to stop when the user wants it, its time is up, or the worker must end."""
    now, wish = time.monotonic(), attempt.lease.wish
    wanted = wish.desired is not Desired.RUN
    if wanted or attempt.context.stopping.is_set() or attempt.out_of_time:
        mode = wish.stop_mode if wanted else "save"
        if attempt.stop_mode not in (mode, "now"):
            attempt.trainer.stop(mode)
            attempt.stop_mode = mode
            attempt.stop_sent = attempt.stop_sent or now
    if attempt.stop_sent and now - attempt.stop_sent > attempt.context.settings.grace_seconds / 2:
        raise AttemptBroken(
            "stop_timeout", "The trainer did not stop in time after it was asked to."
        )


def _conclude(attempt: Attempt, folder: Path, last: Record) -> None:
    job = attempt.job
    match last["type"]:
        case "done":
            try:
                finish.succeed(attempt.context, job, attempt.publisher, folder, last)
            except GivenUp:
                reason = "The object storage had not taken the model when the job had to stop."
                attempt.reports.tell("warn", reason, {"step": last["step"]})
                attempt.reports.write_all(attempt.lease)
                _leave(attempt, folder, f"{reason} The job is queued to go on elsewhere.")
            else:
                attempt.reports.remember()
        case "stopped" if attempt.out_of_time and attempt.lease.wish.desired is Desired.RUN:
            limit = _time_limit(attempt.context.settings.max_job_seconds)
            _fail(attempt, folder, limit.as_job_error())
        case "stopped":
            why = "The worker is shutting down" if attempt.context.stopping.is_set() else "Stopped"
            reason = f"{why} after step {last['step']}. The job is queued to go on elsewhere."
            _leave(attempt, folder, reason)
        case _:
            if last["code"] in RETRIED:
                raise AttemptBroken(last["code"], last["message"])
            _fail(attempt, folder, last)


def _ending(attempt: Attempt, last: Record) -> dict[str, str]:
    """What trackers are told of an attempt's end."""
    job = attempt.job
    match last["type"]:
        case "done":
            name = registry.name(job.base_model, attempt.publisher.project_name, job.suffix, job.id)
            return {"status": "finished", "fine_tuned_model": name}
        case "failed" if last["code"] not in RETRIED:
            return {"status": "failed", "error": last["message"]}
        case "stopped" if attempt.lease.wish.desired is Desired.CANCEL:
            return {"status": "killed"}
        case _:
            return {"status": "interrupted"}


def _time_limit(seconds: float) -> TimeLimit:
    return TimeLimit(
        f"The job has run for {seconds:,.0f} seconds, this server's limit.",
        hint="Its checkpoints are kept: start a job with `from_checkpoint`, or ask the "
        "administrator to raise LUTHIER_MAX_JOB_SECONDS.",
    )


def _leave(attempt: Attempt, folder: Path, reason: str) -> None:
    """Queue, pause or cancel the job, as is wished. What a cancelled one measured is kept."""
    job = attempt.job
    cancelled = attempt.lease.wish.desired is Desired.CANCEL
    # Who cancels wants an end, not a picture.
    made = _results(attempt, folder, drawn=False) if cancelled else None

    def change(session: Session) -> None:
        ended = leases.give_back(session, job.id, job.fence, reason)
        if made is not None and ended.status == Status.CANCELLED:
            made.attach(session, ended)

    attempt.lease.write(change)
    attempt.context.doorbell.train(job.requires)  # For the workers that stay.


def _fail(attempt: Attempt, folder: Path, last: Record) -> None:
    """The job's own fault: it ends at once."""
    job = attempt.job
    error = {"code": last["code"], "message": last["message"], "param": last.get("param")}
    made = _results(attempt, folder, drawn=True)

    def change(session: Session) -> None:
        ended = leases.end(
            session,
            job.id,
            job.fence,
            Status.FAILED,
            "failed",
            message=last["message"],
            data={"code": last["code"], "details": last.get("details")},
            error=error,
        )
        if made is not None:
            made.attach(session, ended)

    attempt.lease.write(change)


def _results(attempt: Attempt, folder: Path, *, drawn: bool) -> Results | None:
    return of_ended(attempt.context, attempt.job, attempt.lease, folder, drawn=drawn)


def _lose(
    context: Context, job: Job, lease: Lease, trainer: Trainer, code: str, reason: str
) -> None:
    """The attempt broke: the job is tried again, or given up with what it measured."""
    trainer.kill()
    tail, most = trainer.log_tail(), context.settings.max_failures
    made: Results | None = None

    def foresee(session: Session) -> Status:
        return leases.fate(session, leases.hold(session, job.id, job.fence), code, most)

    def change(session: Session) -> None:
        held = leases.hold(session, job.id, job.fence)
        held.log_tail = tail
        session.flush()
        ended = leases.lose(session, held, code, reason, most)
        if made is not None and ended.status in TERMINAL:
            made.attach(session, ended)

    try:
        fate = lease.write(foresee)
        if fate in TERMINAL:
            folder = job_folder(context, job)
            made = of_ended(context, job, lease, folder, drawn=fate is Status.FAILED)
        lease.write(change)
    except LeaseLost:
        log.warning("the lease was lost as well", extra={"job_id": lease.job_id})


def _crash(status: int) -> str:
    if status < 0:
        return f"The trainer was killed by signal {-status}."
    return f"The trainer ended with status {status} and no result."
