"""Who checks a file, and what becomes of it when they end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from core.errors import Unavailable
from models import validation_leases
from models.db import transaction
from models.leases import POISON_AFTER, LeaseLost
from models.validations import Validation
from tests.api import control
from tests.api.conftest import Live
from tests.api.rows import csv
from worker.validation import validate


def pending(live: Live, name: str) -> str:
    return str(control.got(live, f"/files/{live.upload(csv(name))}")["validation"])


def test_one_of_many_checks_it(live: Live) -> None:
    validation_id = pending(live, "many")
    context = control.context_of(live)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: validate(context, validation_id), range(4)))
    with transaction(live.engine) as session:
        found = session.get_one(Validation, validation_id)
        assert (found.status, found.fence) == ("succeeded", 1)


def test_who_lost_the_lease_writes_nothing(live: Live) -> None:
    validation_id = pending(live, "zombie")
    with transaction(live.engine) as session:
        first = validation_leases.claim(session, "control-a", -1, validation_id)
        assert first is not None
    with transaction(live.engine) as session:
        second = validation_leases.claim(session, "control-b", 30, validation_id)
        assert second is not None
        fences = first.fence, second.fence
    assert fences == (1, 2)
    for write in (
        lambda session: validation_leases.renew(session, validation_id, 1, 30),
        lambda session: validation_leases.drop(session, validation_id, 1),
        lambda session: validation_leases.fail(session, validation_id, 1, {"message": ""}),
        lambda session: validation_leases.succeed(session, validation_id, 1, keep_seconds=1),
    ):
        with pytest.raises(LeaseLost), transaction(live.engine) as session:
            write(session)
    with transaction(live.engine) as session:
        validation_leases.succeed(session, validation_id, 2, keep_seconds=1)


def test_a_file_that_kills_whoever_reads_it_is_given_up(live: Live) -> None:
    """Claims that end without a word, as by kill -9, and a job that waits."""
    validation_id = pending(live, "poison")
    with transaction(live.engine) as session:
        file_id = session.get_one(Validation, validation_id).training_file_id
    for _ in range(POISON_AFTER):
        with transaction(live.engine) as session:
            assert validation_leases.claim(session, "control-a", -1, validation_id)
    made = control.job(live, training_file=file_id)
    assert (made["status"], made["error"]["code"]) == ("failed", "poison")
    assert live.openai().files.retrieve(file_id).status == "error"


def test_a_store_that_is_away_costs_no_try(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    validation_id = pending(live, "away")
    context = control.context_of(live)

    def away(*_: object, **__: object) -> None:
        raise Unavailable("gone for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(context.store, "fetch", away)
        validate(context, validation_id)
    with transaction(live.engine) as session:
        found = session.get_one(Validation, validation_id)
        assert (found.status, found.tries, found.failures) == ("queued", 0, 1)
        assert found.not_before is not None
        assert validation_id not in validation_leases.waiting(session)
        session.execute(text("UPDATE validations SET not_before = NULL"))
    validate(context, validation_id)
    assert control.got(live, f"/fine_tuning/validations/{validation_id}")["status"] == "succeeded"
