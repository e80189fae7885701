"""What a trainer's records become in the database, gathered and written a few times a second."""

from __future__ import annotations

import logging
import math
import time
from datetime import UTC, datetime
from typing import Any

from core import ids
from models import attempts, events, jobs, leases, metrics, past_runs
from models.base import Json
from models.db import Disconnected, Session
from models.jobs import Job
from models.tasks import better
from worker.context import Context
from worker.lease import Lease
from worker.pace import Pace

log = logging.getLogger(__name__)

WRITE_EVERY_SECONDS = 0.25
"""A record that comes after a pause is written at once; where they come fast, so often."""
LOG_POINTS = 40
"""A metrics event is written about this often over a run; the series itself has every step."""

Record = dict[str, Any]


class Reports:
    """Gathers one attempt's records; `flush` writes them under its fence."""

    def __init__(self, context: Context, job: Job, told: dict[str, int]) -> None:
        """`told`: up to which step earlier attempts told of each split. Those are computed again,
        but not told again."""
        self._context = context
        self._job = job
        self._points: list[Json] = []
        self._events: list[Json] = []
        self._columns: Json = {}
        self._latest: Json = dict(job.latest_metrics or {})
        self._told = told
        self._begun = False
        self._of_attempt: Json = {}
        self._best: Json | None = job.best_metrics
        self._written = time.monotonic()
        self._memory: int | None = None
        self._newest = 0.0
        self.pace = Pace(job.resolved or {}, job.predicted)
        total = (job.resolved or {}).get("total_steps", 1)
        self._event_every = max(1, math.ceil(total / LOG_POINTS))

    def add(self, record: Record) -> None:
        """Take a record of type metrics, progress, phase, environment or log."""
        self._newest = record["time"]
        match record["type"]:
            case "metrics":
                self._metrics(record)
            case "progress":
                self._progress(record)
            case "phase":
                self._columns["phase"] = record["phase"]
                self.pace.take(record)
            case "environment":
                self._columns["environment"] = {
                    name: value for name, value in record.items() if name not in ("type", "time")
                }
            case "log":
                self.tell(record["level"], record["message"], record.get("data") or {})

    def note(self, **columns: Any) -> None:
        """Columns of the job's row."""
        self._columns |= columns

    def tell(self, level: str, message: str, data: Json) -> None:
        """An event of the job."""
        self._event(level=level, message=message, data=data)

    @property
    def due_in(self) -> float:
        """Seconds until what has gathered is to be written; endless where nothing has."""
        if not (self._points or self._events or self._columns):
            return math.inf
        return max(0.0, self._written + WRITE_EVERY_SECONDS - time.monotonic())

    def flush(self) -> None:
        """Write what has gathered, if it is time. Raises LeaseLost; Disconnected loses nothing."""
        if self.due_in <= 0:
            # A try that fails counts as well: a database that is away is not asked without pause.
            self._written = time.monotonic()
            with self._context.transaction() as session:
                self._write(session)
            self._clear()

    def write_all(self, lease: Lease) -> None:
        """Write the rest, however long the database is away. Raises LeaseLost."""
        lease.write(self._write)
        self._clear()

    def remember(self) -> None:
        """Once the job has succeeded, keep what it took for the estimates of others. Raises
        nothing: the job needs it not."""
        try:
            with self._context.transaction() as session:
                past_runs.remember(session, self._job.id, self.pace.parts(time.time()))
        except Disconnected as error:
            log.warning("what the job took is not kept: %s", error)

    def _write(self, session: Session) -> None:
        job = leases.hold(session, self._job.id, self._job.fence)
        metrics.write(session, job.id, self._points)
        for event in self._events:
            events.add(session, job.id, **event)
        if self._of_attempt:
            attempts.note(session, job.id, job.fence, **self._of_attempt)
        for name, value in self._columns.items():
            setattr(job, name, value)
        left = self.pace.seconds_left()
        if left is not None:
            left = max(0.0, left - (time.time() - self._newest))
        jobs.note_pace(job, left, self.pace.speed(), self._memory)

    def _clear(self) -> None:
        self._points, self._events, self._columns, self._of_attempt = [], [], {}, {}
        self._written = time.monotonic()

    def _event(self, **values: Any) -> None:
        # Named here, so that a write that is repeated tells it once.
        self._events.append({"event_id": ids.event(), **values})

    def _metrics(self, record: Record) -> None:
        split, step, values = record["split"], record["step"], record["values"]
        finite = {k: v for k, v in values.items() if v is None or math.isfinite(v)}
        measured = datetime.fromtimestamp(record["time"], UTC)
        self._points.append(
            {"split": split, "step": step, "values": finite, "created_at": measured}
        )
        if split == "train" and not self._begun:
            self._begun, self._of_attempt = True, {"first_step_at": measured}
        self._latest = self._latest | {split: {"step": step, **finite}}
        self._columns["latest_metrics"] = self._latest
        if split == "valid":
            self._note_best(step, finite)
        shown = split == "valid" or step % self._event_every == 0 or step == 1
        if shown and step > self._told.get(split, 0):
            loss = finite.get("loss")
            number = "not finite" if loss is None else f"{loss:.4f}"
            word = "training" if split == "train" else "validation"
            self._event(
                message=f"Step {step}: {word} loss={number}",
                type="metrics",
                data={
                    "step": step,
                    "split": split,
                    **{f"{split}_{k}": v for k, v in finite.items()},
                },
            )

    def _note_best(self, step: int, values: Json) -> None:
        assert self._job.resolved is not None
        metric, greater = self._job.resolved["metric"], self._job.resolved["greater_is_better"]
        if better(values, self._best or {}, metric, greater):
            self._best = self._columns["best_metrics"] = {"step": step, **values}

    def _progress(self, record: Record) -> None:
        total = record["total_steps"]
        self.pace.take(record)
        self._memory = record.get("peak_memory_bytes")
        self._columns["trained_tokens"] = record.get("trained_tokens")
        self._columns["progress"] = {
            "step": record["step"],
            "total_steps": total,
            "epoch": record["epoch"],
            "percent": round(100 * record["step"] / total, 2) if total else 100.0,
        }
