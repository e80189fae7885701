"""The supervisor of one attempt: from a claimed job to its fenced end.

It fetches what the job needs, hands the job folder to a standby trainer, turns the trainer's
records into rows, publishes what it makes, and passes on what the user wants. Whatever happens to
the trainer, the attempt ends here in one of four ways: finished, stopped as asked, failed by the
job's own fault, or broken and to be tried again.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from core.errors import LuthierError
from models import leases, projects
from models.db import Disconnected, Session
from models.jobs import Job
from models.leases import LeaseLost
from models.state import Desired, Status
from worker import finish
from worker.context import Context
from worker.lease import Lease
from worker.prepare import job_folder, prepare
from worker.publisher import Publisher
from worker.reports import Reports
from worker.trainer import Record, Standby, Trainer

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
EXIT_SECONDS = 20.0
"""How long a trainer may take to exit after its last record."""

RETRIED = frozenset({"disk_full", "storage_unavailable", "model_unavailable", "internal"})
"""Failure codes of a trainer that are the machine's fault; all others end the job."""


class AttemptBroken(Exception):
    """The attempt cannot go on, for no fault of the user's."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass
class Attempt:
    """What the parts of one attempt share."""

    context: Context
    job: Job
    lease: Lease
    publisher: Publisher
    reports: Reports
    trainer: Trainer
    stop_sent: float | None = None
    """When the trainer was told to stop, by the monotonic clock."""


def supervise(context: Context, standby: Standby, job: Job) -> None:
    """Run one claimed job to the end of this attempt. Raises nothing that is the job's."""
    names = {"job_id": job.id, "fence": job.fence}
    log.info("attempt begins", extra=names)
    trainer = standby.take()
    standby.warm()
    try:
        with Lease(context, job.id, job.fence, trainer.kill) as lease:
            try:
                _run(context, job, trainer, lease)
            except LeaseLost:
                log.warning("attempt ends: its lease is lost", extra=names)
            except AttemptBroken as broken:
                log.warning("attempt broke: %s", broken, extra=names)
                _lose(context, lease, trainer, broken.code, broken.reason)
            except LuthierError as error:
                log.warning("attempt broke: %s", error, extra=names, exc_info=True)
                _lose(context, lease, trainer, error.error_code, str(error))
            except Disconnected as error:
                # The lease cannot be kept or ended without the database: it runs out by itself.
                log.warning("attempt ends: the database is away: %s", error, extra=names)
    finally:
        trainer.close()
        shutil.rmtree(job_folder(context, job), ignore_errors=True)
    log.info("attempt ended", extra=names)


def _run(context: Context, job: Job, trainer: Trainer, lease: Lease) -> None:
    with context.transaction() as session:
        project_name = projects.name_of(session, job.project_id)
    device = trainer.wait_ready(0)["device"]
    wants_cpu = (job.request.get("resources") or {}).get("device") == "cpu"
    folder = prepare(context, job, "cpu" if wants_cpu else device)
    lease.check()
    reports = Reports(context, job)
    with Publisher(context, job, project_name, lease) as publisher:
        attempt = Attempt(context, job, lease, publisher, reports, trainer)
        trainer.start(folder)
        last = _follow(attempt, folder)
        publisher.drain()
        reports.write_all(lease)
        _conclude(attempt, folder, last)


def _follow(attempt: Attempt, folder: Path) -> Record:
    """Pass records on until the one that ends the run. Raises AttemptBroken when none comes."""
    trainer, reports = attempt.trainer, attempt.reports
    while True:
        attempt.lease.check()
        _pass_on_wishes(attempt)
        for record in trainer.read(POLL_SECONDS):
            match record["type"]:
                case "done" | "stopped" | "failed":
                    return record
                case "checkpoint":
                    attempt.publisher.add(folder / record["path"], record)
                case _:
                    reports.add(record)
        try:
            reports.flush()
        except Disconnected as error:
            log.warning("records kept until the database is back: %s", error)
        if trainer.ended:
            status = trainer.wait(EXIT_SECONDS)
            attempt.lease.check()
            raise AttemptBroken("trainer_crashed", _crash(status))


def _pass_on_wishes(attempt: Attempt) -> None:
    """Tell the trainer to stop when the user wants it, or the worker is shutting down."""
    wish, stopping = attempt.lease.wish, attempt.context.stopping.is_set()
    if attempt.stop_sent is not None:
        if time.monotonic() - attempt.stop_sent > attempt.context.settings.grace_seconds * 0.8:
            raise AttemptBroken(
                "stop_timeout", "The trainer did not stop in time after it was asked to."
            )
    elif wish.desired is not Desired.RUN or stopping:
        mode = wish.stop_mode if wish.desired is Desired.CANCEL else "save"
        attempt.trainer.stop(mode)
        attempt.stop_sent = time.monotonic()


def _conclude(attempt: Attempt, folder: Path, last: Record) -> None:
    context, job = attempt.context, attempt.job
    match last["type"]:
        case "done":
            finish.succeed(context, job, attempt.publisher, folder, last)
        case "stopped":
            reason = (
                f"The worker is shutting down; step {last['step']} is saved. "
                "The job is queued to go on elsewhere."
            )
            attempt.lease.write(
                lambda session: leases.give_back(session, job.id, job.fence, reason)
            )
        case _:
            if last["code"] in RETRIED:
                raise AttemptBroken(last["code"], last["message"])
            _fail(attempt, last)


def _fail(attempt: Attempt, last: Record) -> None:
    """The job's own fault: it ends at once."""
    job = attempt.job
    error = {"code": last["code"], "message": last["message"], "param": last.get("param")}
    tail = attempt.trainer.log_tail()
    attempt.lease.write(
        lambda session: leases.end(
            session,
            job.id,
            job.fence,
            Status.FAILED,
            "failed",
            message=last["message"],
            data={"code": last["code"], "details": last.get("details")},
            error=error,
            log_tail=tail,
        )
    )


def _lose(context: Context, lease: Lease, trainer: Trainer, code: str, reason: str) -> None:
    trainer.kill()
    tail = trainer.log_tail()

    def change(session: Session) -> None:
        held = leases.hold(session, lease.job_id, lease.fence)
        held.log_tail = tail
        session.flush()
        leases.lose(session, held, code, reason, context.settings.max_failures)

    try:
        lease.write(change)
    except LeaseLost:
        log.warning("the lease was lost as well", extra={"job_id": lease.job_id})


def _crash(status: int) -> str:
    if status < 0:
        return f"The trainer was killed by signal {-status}."
    return f"The trainer ended with status {status} and no result."
