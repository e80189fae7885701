"""Control workers that are killed while they deliver webhooks. Row 24."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select, update

from models import webhooks
from models.db import transaction
from models.webhook_deliveries import Delivery
from models.webhooks import Webhook
from tests.faults.fleet import Fleet
from tests.faults.processes import wait_for
from tests.receiver import receiving
from tests.rows import make_job

OPENED = {"LUTHIER_OUTGOING_ALLOW": "127.0.0.0/8"}


@pytest.mark.faults
def test_a_control_killed_between_sending_and_noting_it_sends_it_again(fleet: Fleet) -> None:
    """Row 24: nothing is lost, and a receiver tells by `webhook-id` that it had it."""
    for process in fleet.alive("control"):
        fleet.end(process)
    with receiving() as receiver:
        with transaction(fleet.engine) as session:
            row = Webhook(
                project_id=fleet.project,
                url=receiver.url,
                event_types=["fine_tuning.job.created"],
            )
            webhook_id = webhooks.create(session, row).id
        secret = webhooks.secret(fleet.settings.signing_secret(), webhook_id, 1)
        make_job(fleet.engine, fleet.project, training_file_id=fleet.upload(rows=2))
        with fleet.slow_writes("webhook_deliveries", "UPDATE", seconds=60, deferred=False):
            killed = fleet.start("control", **OPENED)
            wait_for("it was sent", lambda: receiver.received)
            wait_for("it is being noted", lambda: fleet.sleeping_backends() or None)
            killed.kill()
            fleet.end_sleeping_backends()
        with transaction(fleet.engine) as session:
            assert session.scalars(select(Delivery.attempts)).one() == 0
            # Time passes: the lease of whoever was killed runs out.
            session.execute(update(Webhook).values(lease_expires_at=func.now()))
        again = fleet.start("control", **OPENED)
        wait_for("it was sent again", lambda: receiver.received[1:] or None)
        wait_for("it was noted", lambda: _noted(fleet) or None)
        fleet.end(again)
    first, second = receiver.received
    assert first.id == second.id
    assert first.body == second.body
    assert receiver.types(secret) == ["fine_tuning.job.created"] * 2


def _noted(fleet: Fleet) -> bool:
    with transaction(fleet.engine) as session:
        (delivery,) = session.scalars(select(Delivery))
        return (delivery.status, delivery.attempts) == ("succeeded", 1)
