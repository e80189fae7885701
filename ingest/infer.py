"""Which task a file is for, told from the columns of its first rows."""

from __future__ import annotations

from pathlib import Path

from core.errors import InvalidRequest
from ingest import tasks
from ingest.limits import Limits
from ingest.prepare import columns_of
from models.tasks import TRAINABLE


def infer_task(source: Path, *, name: str, limits: Limits | None = None) -> str:
    """The one task that the columns fit. Raises InvalidRequest, naming the tasks, or BadData."""
    found = columns_of(source, name=name, limits=limits)
    task = tasks.infer(found)
    if task is None:
        raise InvalidRequest(
            f"The task cannot be told from the columns of {name}: {', '.join(found[:20])}. "
            f"Give `task` with the job, one of: {', '.join(TRAINABLE)}.",
            param="task",
            code="task_ambiguous",
        )
    return task
