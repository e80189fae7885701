"""The Celery app of worker processes: the tasks behind the doorbell, and the beat."""

from __future__ import annotations

from celery import Celery
from celery.signals import beat_embedded_init, worker_process_init, worker_shutting_down

from core.doorbell import CONTROL_QUEUE, TRAIN, VALIDATE, make_celery
from core.parent import die_with_parent
from core.settings import Settings
from models import leases
from worker import reconcilers
from worker.context import Context
from worker.supervisor import supervise
from worker.trainer import Standby
from worker.validation import validate

SOCKET_TIMEOUT_SECONDS = 10.0
"""For a worker's broker connection; above the second for which an idle consumer blocks."""


def training_app(context: Context, standby: Standby, capabilities: list[str]) -> Celery:
    """Rings on the training queues claim jobs until none is left. One at a time."""
    app = make_celery(context.settings, socket_timeout=SOCKET_TIMEOUT_SECONDS)

    def train() -> None:
        while not context.stopping.is_set():
            with context.transaction() as session:
                job = leases.claim_training(
                    session, context.worker_id, capabilities, context.settings.lease_seconds
                )
            if job is None:
                return
            supervise(context, standby, job)

    app.task(train, name=TRAIN)

    def shutting_down(**_: object) -> None:
        context.stopping.set()

    worker_shutting_down.connect(shutting_down, weak=False)
    return app


def control_app(settings: Settings) -> Celery:
    """Validation and the reconcilers. Its beat may run twice: every tick is safe to repeat."""
    app = make_celery(settings, socket_timeout=SOCKET_TIMEOUT_SECONDS)
    opened: list[Context] = []

    def open_context(**_: object) -> None:
        # In each pool process anew: connections must not cross a fork.
        opened[:] = [Context.open(settings)]

    worker_process_init.connect(open_context, weak=False)
    # Else a killed worker would leave its clock ticking.
    for started in (worker_process_init, beat_embedded_init):
        started.connect(_die_with_worker, weak=False)

    def validate_one(job_id: str) -> None:
        validate(opened[0], job_id)

    app.task(validate_one, name=VALIDATE)
    for reconciler in reconcilers.ALL:

        def tick(run: reconcilers.Reconciler = reconciler) -> None:
            run.reconcile(opened[0])

        app.task(tick, name=reconciler.NAME)
        app.conf.beat_schedule[reconciler.NAME] = {
            "task": reconciler.NAME,
            "schedule": reconciler.every(settings),
            # A tick that nobody took before the next one is due is of no use.
            "options": {"queue": CONTROL_QUEUE, "expires": reconciler.every(settings) * 2},
        }
    return app


def _die_with_worker(**_: object) -> None:
    die_with_parent()
