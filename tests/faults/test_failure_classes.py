"""The machine's own failures: retried to a cap, then told by a stable code."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.state import TERMINAL
from tests.faults.fleet import Fleet

CAP = 2


@pytest.mark.parametrize(
    ("lacks", "outcome", "code"),
    [
        ("model", "model_unavailable", "model_unavailable"),
        ("data", "storage_object_missing", "storage_unavailable"),
    ],
)
@pytest.mark.faults
def test_what_a_worker_lacks_is_waited_for_and_then_told(
    fleet: Fleet, tmp_path: Path, lacks: str, outcome: str, code: str
) -> None:
    """A worker whose folders are not mounted: no fault of the user's, and no endless trying."""
    for left in fleet.alive("worker"):
        fleet.end(left)
    (tmp_path / "storage").mkdir()
    missing = {
        "model": {"LUTHIER_BASE_MODELS": "{}", "LUTHIER_HUB": "false"},
        "data": {"LUTHIER_STORAGE_URL": (tmp_path / "storage").as_uri()},
    }
    poor = fleet.start_worker(LUTHIER_MAX_FAILURES=str(CAP), **missing[lacks])
    job_id = fleet.submit(fleet.upload(), max_steps=5)
    job = fleet.wait_status(job_id, *TERMINAL)
    assert job["status"] == "failed"
    assert job["error"]["code"] == code
    assert f"interrupted {CAP} times" in job["error"]["message"]
    assert [attempt["outcome"] for attempt in job["attempts"]] == [outcome] * CAP
    fleet.end(poor)
