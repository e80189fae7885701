"""The job's states and which may follow which. Only `models/transitions.py` writes a status."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    VALIDATING = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Desired(StrEnum):
    """What the user wants of a job. Users' calls write this; the state machine writes `Status`."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

NEXT: dict[Status, frozenset[Status]] = {
    Status.VALIDATING: frozenset({Status.QUEUED, Status.FAILED, Status.CANCELLED}),
    Status.QUEUED: frozenset({Status.RUNNING, Status.PAUSED, Status.FAILED, Status.CANCELLED}),
    # running → queued is a lease lost or handed back.
    Status.RUNNING: frozenset({Status.QUEUED, Status.PAUSED, *TERMINAL}),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


def sources(target: Status) -> frozenset[Status]:
    """The states from which `target` may be entered."""
    return frozenset(state for state, following in NEXT.items() if target in following)
