"""`python -m worker.tracking TASK`: report one attempt to one tracker, by the tracker's library.

TASK is JSON: the integration as the job has it, the job's id and settings, and the file to which
the supervisor appends what there is to tell. The last line of its output says why it failed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from core.parent import die_with_parent

POLL_SECONDS = 0.5
MOST_AT_ONCE = 200
"""Records of one call: MLflow takes at most 1,000 values in one."""


class Tracker(Protocol):
    def log(self, records: list[dict[str, Any]]) -> None:
        """Take in `metrics` records (docs/job-folder.md)."""

    def end(self, told: dict[str, Any]) -> None:
        """Take in how the attempt ended: `status` and what else is known of the result."""


def main(task: dict[str, Any]) -> None:
    tracker = _open(task)
    waiting: list[dict[str, Any]] = []
    for record in _records(Path(task["points"])):
        if record is not None and record["type"] == "metrics":
            waiting.append(record)
        if waiting and (record is None or record["type"] == "end" or len(waiting) >= MOST_AT_ONCE):
            tracker.log(waiting)
            waiting = []
        if record is not None and record["type"] == "end":
            tracker.end(record)
            return


def _open(task: dict[str, Any]) -> Tracker:
    """The libraries are optional, and each is imported where its tracker is asked for."""
    if task["integration"]["type"] == "mlflow":
        from worker.tracking.to_mlflow import ToMlflow

        return ToMlflow(task)
    from worker.tracking.to_wandb import ToWandb

    return ToWandb(task)


def _records(path: Path) -> Iterator[dict[str, Any] | None]:
    """The records of a file that is still being written; None whenever there are no more yet."""
    with path.open(encoding="utf-8") as file:
        rest = ""
        while True:
            rest += file.readline()
            if rest.endswith("\n"):
                yield json.loads(rest)
                rest = ""
            else:
                yield None
                time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    die_with_parent()
    try:
        main(json.loads(sys.argv[1]))
    except ImportError as error:
        sys.exit(f"{error.name} is not installed on this worker: install luthier-server[tracking]")
    except Exception as error:  # noqa: BLE001 - whatever a library raises is told, and no more
        sys.exit(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
