"""Control workers that are killed while they check a file. Row 23, for validations."""

from __future__ import annotations

import random
import time
from typing import Any

import psutil
import pytest

from models.db import transaction
from models.state import TERMINAL
from models.validations import Validation, ValidationStatus
from tests.faults.fleet import Fleet
from tests.faults.processes import Process, assert_dead_within, wait_for
from worker.context import Context
from worker.validation import validate

ROWS = 300_000
"""Enough that a check is met while it goes on."""


@pytest.mark.faults
def test_a_control_killed_while_it_checks_a_file(fleet: Fleet, rng: random.Random) -> None:
    """Its child dies with it; the next one takes the check up; the file and the job that waits
    come to their end."""
    fleet.worker()
    file_id = fleet.upload(ROWS)
    check = str(fleet.get(f"/files/{file_id}")["validation"])
    job_id = fleet.submit(file_id, max_steps=1)
    assert fleet.job(job_id)["validation"] == check
    for _ in range(2):
        (control,) = fleet.alive("control")
        child = wait_for("the file is being read", lambda c=control: checker(c))
        time.sleep(rng.uniform(0, 0.5))
        control.kill()
        assert_dead_within(5, "the child of a killed control", [child])
        fleet.start("control")
    wait_for("the file is processed", lambda: settled(fleet, file_id), 120)
    found: dict[str, Any] = fleet.get(f"/fine_tuning/validations/{check}")
    assert (found["status"], found["training"]["rows"]) == ("succeeded", ROWS)
    with transaction(fleet.engine) as session:
        assert session.get_one(Validation, check).fence == 3
    assert fleet.wait_status(job_id, *TERMINAL)["status"] == "succeeded"
    assert fleet.get(f"/files/{file_id}")["status"] == "processed"


def test_a_deploy_in_the_middle_of_a_check_is_no_try(fleet: Fleet, rng: random.Random) -> None:
    """Row 11: however often it comes, the check is handed back, and its child ended, well within
    the grace. A kill would count, and after the fourth the file be taken for poison."""
    check = str(fleet.get(f"/files/{fleet.upload(ROWS + 1)}")["validation"])
    for fence in (1, 2):
        (control,) = fleet.alive("control")
        child = wait_for("the file is being read", lambda c=control: checker(c))
        time.sleep(rng.uniform(0, 0.5))
        assert fleet.end(control, 20) == 0
        assert_dead_within(1, "the child of a control that has ended", [child])
        with transaction(fleet.engine) as session:
            row = session.get_one(Validation, check)
            assert (row.status, row.fence, row.tries) == (ValidationStatus.QUEUED, fence, 0)
            assert (row.failures, row.worker_id) == (0, None)
        fleet.start("control")
    done = wait_for("the check has ended", lambda: succeeded(fleet, check), 120)
    assert done["training"]["rows"] == ROWS + 1


def test_a_frozen_check_that_wakes_up_writes_nothing(fleet: Fleet) -> None:
    """Held past its lease by a control that sleeps, then ended by another one."""
    for control in fleet.alive("control"):
        fleet.end(control)
    answer = fleet.get(f"/files/{fleet.upload(37)}")  # of a content that no other test has
    never = {"lease_seconds": 0.2, "heartbeat_seconds": 60.0}
    asleep = Context.open(fleet.settings.model_copy(update=never))
    awake = Context.open(fleet.settings)
    fetch = asleep.store.fetch

    def slow(*arguments: Any, **options: Any) -> None:
        fetch(*arguments, **options)
        time.sleep(0.5)
        validate(awake, answer["validation"])

    asleep.store.fetch = slow  # type: ignore[method-assign]
    validate(asleep, answer["validation"])
    with transaction(fleet.engine) as session:
        found = session.get_one(Validation, answer["validation"])
        assert (found.status, found.fence) == (ValidationStatus.SUCCEEDED, 2)
    for context in (asleep, awake):
        context.engine.dispose()


def checker(control: Process) -> psutil.Process | None:
    for child in psutil.Process(control.pid).children(recursive=True):
        if "ingest.child" in child.cmdline():
            return child
    return None


def succeeded(fleet: Fleet, check: str) -> dict[str, Any] | None:
    found: dict[str, Any] = fleet.get(f"/fine_tuning/validations/{check}")
    return found if found["status"] == "succeeded" else None


def settled(fleet: Fleet, file_id: str) -> bool | None:
    return fleet.get(f"/files/{file_id}")["status"] != "uploaded" or None
