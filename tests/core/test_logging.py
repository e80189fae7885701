"""What stands in a log line, and what never does."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from core.logging import _Json, _Text, bound


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("x", logging.INFO, "", 0, message, (), None)
    vars(made).update(extra)
    return made


def entry(message: str = "m", **extra: object) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(_Json().format(record(message, **extra)))
    return parsed


def test_what_is_bound_is_on_every_record_of_the_block() -> None:
    with bound(request_id="req-1", job_id="ftjob-outer"), bound(job_id="ftjob-1", fence=0):
        told = entry()
        assert (told["request_id"], told["job_id"], told["fence"]) == ("req-1", "ftjob-1", 0)
        assert entry(job_id="ftjob-2")["job_id"] == "ftjob-2"
        assert entry(job_id=None)["job_id"] == "ftjob-1"
        assert _Text("%(message)s").format(record("m")) == (
            "m request_id=req-1 job_id=ftjob-1 fence=0"
        )
        # A thread of somebody else's job is not in this block.
        with ThreadPoolExecutor(1) as pool:
            assert "job_id" not in pool.submit(entry).result()
    assert "request_id" not in entry()


def test_secrets_are_masked_wherever_they_stand() -> None:
    secret = "whsec_" + "QUJD" * 10
    key = "lk-0a1b2cSECRETSECRETSECRET"
    with bound(job_id=key):
        for line in (
            _Json().format(record(f"signed with {secret}, by {key}")),
            _Text("%(message)s").format(record(f"signed with {secret}, by {key}")),
        ):
            assert "QUJDQUJD" not in line
            assert "SECRET" not in line
