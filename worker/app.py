"""The Celery app of worker processes: the tasks behind the doorbell, and the beat."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from celery import Celery
from celery.signals import beat_embedded_init, worker_shutting_down

from core.doorbell import CONTROL_QUEUE, PREDICT, TRAIN, VALIDATE, make_celery
from core.logging import bound
from core.parent import die_with_parent
from models import leases
from models.db import Disconnected
from models.jobs import Job
from worker import base_models, reconcilers
from worker.admission import admit_waiting
from worker.context import Context
from worker.prediction import predict
from worker.scratch import hand_back, remove_strays
from worker.supervisor import supervise
from worker.trainer import NoTrainer, Standby
from worker.validation import validate

SOCKET_TIMEOUT_SECONDS = 10.0
"""For a worker's broker connection; above the second for which an idle consumer blocks."""
VALIDATIONS = 2
"""Files that one control worker checks at a time, each in a process of its own."""
CONTROL_THREADS = VALIDATIONS + 1 + len(reconcilers.ALL)
"""One for each of these, for a prediction and for every reconciler: whatever of it is slow, a dead
worker's job is taken back in time."""

log = logging.getLogger(__name__)


def training_app(context: Context, standby: Standby, capabilities: list[str]) -> Celery:
    """Rings on the training queues claim jobs until none is left. One at a time."""
    app = make_celery(context.settings, socket_timeout=SOCKET_TIMEOUT_SECONDS)

    def claim() -> Job | None:
        with context.transaction() as session:
            return leases.claim_training(
                session, context.worker_id, capabilities, context.settings.lease_seconds
            )

    def train() -> None:
        try:
            while not context.stopping.is_set():
                hand_back(context)
                remove_strays(context)
                base_models.make_room(context)
                # A lease would run out while the trainer's libraries are still being imported.
                standby.wait_ready()
                claimed, began_ns = time.monotonic(), time.time_ns()
                if (job := claim()) is None:
                    return
                attempt = context.tracing.span(
                    "attempt",
                    parent=job.traceparent,
                    began_ns=began_ns,
                    job_id=job.id,
                    fence=job.fence,
                )
                with bound(job_id=job.id, fence=job.fence), attempt:
                    with context.tracing.span("claim", began_ns=began_ns):
                        pass  # It is over: told once there is a job whose trace it belongs to.
                    supervise(context, standby, job, claimed)
        except (*Disconnected, OSError, NoTrainer) as error:
            log.warning("no job is claimed until the next ring: %s", error, exc_info=True)

    app.task(train, name=TRAIN)
    _note_shutdown(context)
    return app


def _note_shutdown(context: Context) -> None:
    def shutting_down(**_: object) -> None:
        context.stopping.set()

    worker_shutting_down.connect(shutting_down, weak=False)


def control_app(context: Context) -> Celery:
    """Validation and the reconcilers. Its beat may run twice: every tick is safe to repeat.

    Once it is to end, nothing is begun any more, and what is under way goes to others.
    """
    app = make_celery(context.settings, socket_timeout=SOCKET_TIMEOUT_SECONDS)
    free = threading.BoundedSemaphore(VALIDATIONS)

    def validate_one(validation_id: str) -> None:
        if context.stopping.is_set():
            return
        try:
            if free.acquire(blocking=False):  # Else it is rung for again until its turn comes.
                try:
                    validate(context, validation_id)
                finally:
                    free.release()
            admit_waiting(context, validation_id)
        except Disconnected as error:
            log.warning("validation ends, the database is away: %s", error)

    app.task(validate_one, name=VALIDATE)
    one = threading.Lock()

    def predict_one(prediction_id: str) -> None:
        if context.stopping.is_set():
            return
        try:
            if one.acquire(blocking=False):  # Else it is rung for again until its turn comes.
                try:
                    predict(context, prediction_id)
                finally:
                    one.release()
        except Disconnected as error:
            log.warning("prediction ends, the database is away: %s", error)

    app.task(predict_one, name=PREDICT)
    for reconciler in reconcilers.ALL:
        app.task(_tick(context, reconciler), name=reconciler.NAME)
        app.conf.beat_schedule[reconciler.NAME] = {
            "task": reconciler.NAME,
            "schedule": reconciler.every(context.settings),
            # A tick that nobody took before the next one is due is of no use.
            "options": {"queue": CONTROL_QUEUE, "expires": reconciler.every(context.settings) * 2},
        }
    # The beat is a process of its own: else a killed worker would leave its clock ticking.
    beat_embedded_init.connect(_die_with_worker, weak=False)
    _note_shutdown(context)
    return app


def _tick(context: Context, reconciler: reconcilers.Reconciler) -> Callable[[], None]:
    """Runs a reconciler, in this process never beside itself: one that a slow store holds up for
    longer than its period would fill the pool, and nothing else would run."""
    alone = threading.Lock()

    def tick() -> None:
        if context.stopping.is_set() or not alone.acquire(blocking=False):
            return  # Or the one before is still at it.
        try:
            reconciler.reconcile(context)
        except Disconnected as error:
            log.warning("%s waits for the database: %s", reconciler.NAME, error)
        finally:
            alone.release()

    return tick


def _die_with_worker(**_: object) -> None:
    die_with_parent()
