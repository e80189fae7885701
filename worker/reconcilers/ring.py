"""Rings again for whatever waits: rings may be lost, and a back-off ends in silence."""

from __future__ import annotations

import logging

from kombu.exceptions import OperationalError

from core.doorbell import train_queue
from core.settings import Settings
from models import leases, predictions, validation_leases, validations
from worker.context import Context

NAME = "ring"

log = logging.getLogger(__name__)


def every(settings: Settings) -> float:
    return settings.reconcile_seconds


def reconcile(context: Context) -> None:
    """One ring for each that waits, unless as many lie unanswered already.

    While all workers are busy nobody takes rings; without that bound they would pile up.
    """
    with context.transaction() as session:
        validations.adopt(session)
        unvalidated = validation_leases.waiting(session)
        queued = leases.waiting(session)
        untried = predictions.waiting(session)
    try:
        for prediction_id in untried:
            context.doorbell.predict(prediction_id)
        for validation_id in unvalidated:
            context.doorbell.validate(validation_id)
        for requires, jobs in queued.items():
            unanswered = context.doorbell.pending(train_queue(list(requires)))
            for _ in range(jobs - unanswered):
                context.doorbell.train(list(requires))
    except (OperationalError, OSError) as error:
        log.warning("the broker is away, rings follow later: %s", error)
