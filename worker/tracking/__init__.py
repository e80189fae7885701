"""Reporting to trackers of experiments, each by a process of its own that may fail, hang or die.

The supervisor appends what there is to tell to a file of the job folder and never waits; the
process reads that file at its own pace. Only the end of an attempt waits, and not for long.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from core.settings import Settings
from models.integrations import Integration, MlflowIntegration
from models.jobs import Job
from models.spec import JobRequest
from worker.context import Context
from worker.trainer import INHERITED

END_SECONDS = 30.0
"""What the end of an attempt waits for all trackers together; those that need more are killed."""
POLL_SECONDS = 0.05
POINTS = "tracked.jsonl"
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
SETTINGS = (
    "task", "model", "tuning", "n_epochs", "total_steps", "batch_size", "learning_rate",
    "optimizer", "lr_scheduler", "warmup_steps", "weight_decay", "max_length", "precision", "seed",
    "train_rows", "valid_rows", "train_sha256",
)  # fmt: skip
"""Of the resolved spec, what a run is compared by."""
NAMES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}

log = logging.getLogger(__name__)


class Tracking:
    """The trackers of one attempt. Nothing here raises for a fault of theirs."""

    def __init__(self, context: Context, job: Job, folder: Path) -> None:
        asked = JobRequest.model_validate(job.request).integrations or []
        self._context = context
        self._points: IO[str] | None = None
        if asked:
            self._points = (folder / POINTS).open("a", encoding="utf-8", buffering=1)
        self._trackers = [_Tracker(context, job, folder, one) for one in asked]

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for tracker in self._trackers:
            tracker.kill()
        if self._points is not None:
            self._points.close()

    def add(self, record: dict[str, Any]) -> None:
        """Pass a `metrics` record on."""
        if self._points is None:
            return
        try:
            self._points.write(json.dumps(record) + "\n")
        except OSError as error:
            log.warning("trackers miss a record: %s", error)

    def faults(self) -> list[str]:
        """What became of trackers since this was asked last: a sentence for each that ended."""
        return [fault for tracker in self._trackers if (fault := tracker.fault())]

    def end(self, status: str, **told: Any) -> list[str]:
        """Tell the trackers how the attempt ends, and let them finish: `finished`, `failed`,
        `killed`, or `interrupted`, after which another attempt goes on. Then as `faults`."""
        if self._points is None:
            return []
        self.add({"type": "end", "time": time.time(), "status": status, **told})
        deadline = time.monotonic() + END_SECONDS
        while any(tracker.runs for tracker in self._trackers):
            if time.monotonic() > min(deadline, self._context.leaves_at):
                break
            time.sleep(POLL_SECONDS)
        for tracker in self._trackers:
            tracker.end()
        return self.faults()


class _Tracker:
    def __init__(self, context: Context, job: Job, folder: Path, asked: Integration) -> None:
        self._name = NAMES[asked.type]
        self._told = False
        self._log = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `kill`
        resolved = job.resolved or {}
        task = {
            "integration": asked.model_dump(),
            "job_id": job.id,
            "settings": {name: resolved.get(name) for name in SETTINGS},
            "points": str(folder / POINTS),
            "folder": str(context.scratch("wandb") if context.settings.wandb_offline else folder),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "worker.tracking", json.dumps(task)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=_environment(context.settings, folder, asked),
            start_new_session=True,
        )

    def fault(self) -> str | None:
        """Why it ended without having been asked to, once."""
        status = self._process.poll()
        if status in (None, 0) or self._told:
            return None
        self._told = True
        reason = self._last_line() if status == 1 else ""
        return (
            f"Reporting to {self._name} ended: {reason or f'its process ended with {status}'}. "
            "The job is not affected, and has all its metrics."
        )

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Kill it if it is not done by now."""
        if self.runs:
            log.warning("%s took too long to finish and is killed", self._name)
            self._kill_group()

    def kill(self) -> None:
        self._kill_group()
        self._log.close()

    def _kill_group(self) -> None:
        # Before it is reaped, so that the group's number is still its own.
        if self.runs:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].rstrip(".") if lines else ""


def _environment(settings: Settings, folder: Path, asked: Integration) -> dict[str, str]:
    """Only what this tracker needs, its credentials among it; the trainer gets none of them."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    kept |= {"HOME": str(folder), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    if isinstance(asked, MlflowIntegration):
        uri = asked.mlflow.tracking_uri or settings.mlflow_tracking_uri or ""
        kept |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
        return kept | {name: os.environ[name] for name in CREDENTIALS if name in os.environ}
    kept |= {
        "WANDB_MODE": "offline" if settings.wandb_offline else "online",
        "WANDB_BASE_URL": settings.wandb_base_url,
        "WANDB_ERROR_REPORTING": "false",
    }
    if settings.wandb_api_key is not None:
        kept["WANDB_API_KEY"] = settings.wandb_api_key.get_secret_value()
    return kept
