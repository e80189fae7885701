"""Trying a fine-tuned model on one input: its files from storage, a limited child, an answer."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from core import child
from core.errors import LuthierError
from models import files, predictions, registry
from models.base import Json
from models.leases import LeaseLost
from models.predictions import Prediction
from models.registry import FineTunedModel
from worker.context import Context
from worker.lease import Lease
from worker.waiting import ShuttingDown, holding, while_wanted

MOST_TRIES = 3
MOST_MODELS = 4
"""Models whose files stay on this machine for the next try."""
IN_USE_SECONDS = 3600.0
"""A model or a scratch folder that was touched since may be in use by another process."""
THREADS = "2"
STDERR_SHOWN = 2000

log = logging.getLogger(__name__)


def predict(context: Context, prediction_id: str) -> None:
    """Do a prediction, unless somebody does so already or has done so."""
    claimed = time.monotonic()
    with context.transaction() as session:
        row = predictions.claim(session, prediction_id, context.settings.lease_seconds)
    if row is None:
        return
    try:
        with Lease(
            context, row.id, row.fence, lambda: None, claimed=claimed, renew=predictions.renew
        ) as lease:
            _predict(context, row, lease)
    except LeaseLost:
        log.warning("prediction ends: the lease of %s is lost", row.id)


def _predict(context: Context, row: Prediction, lease: Lease) -> None:
    wanted = holding(context, lease)
    try:
        told = while_wanted(lambda: _told(context, row, wanted), wanted)
    except ShuttingDown:
        lease.write(lambda session: predictions.give_back(session, row.id, row.fence))
        context.doorbell.predict(row.id)  # For those that stay.
        return
    output, error = told.get("output"), told.get("error")
    lease.write(
        lambda session: predictions.end(session, row.id, row.fence, output=output, error=error)
    )


def _told(context: Context, row: Prediction, wanted: Callable[[], None]) -> Json:
    """`{output}` or `{error}`."""
    if row.tries > MOST_TRIES:
        return _error("prediction_failed", f"It was tried {MOST_TRIES} times and never ended.")
    if find_spec("torch") is None:
        return _error(
            "predictions_unavailable",
            "The control workers of this server have no torch, so no model can be tried here. "
            "Download it, or ask the administrator for a control worker of the worker's image.",
        )
    try:
        with tempfile.TemporaryDirectory(dir=context.scratch("predictions")) as scratch:
            request = _request(context, row, Path(scratch))
            return _ask(request, Path(scratch), context.settings.prediction_seconds, wanted)
    except LeaseLost:
        raise
    except LuthierError as error:
        return _error(error.error_code, str(error))


def _error(code: str, message: str) -> Json:
    return {"error": {"code": code, "message": message}}


def _request(context: Context, row: Prediction, scratch: Path) -> Json:
    """What the child is told. Raises LuthierError where the model or the file is gone."""
    asked = row.asked()
    given: Json = (
        {"text": asked.input} if isinstance(asked.input, str) else asked.input.model_dump()
    )
    with context.transaction() as session:
        model = registry.get(session, row.project_id, row.model_id)
        file = files.get(session, row.project_id, given["file"]) if "file" in given else None
    if file is not None:
        context.store.fetch(file.storage_key, scratch / "input", sha256=file.sha256)
        given = {"path": str(scratch / "input")}
    return {
        "folder": str(_folder(context, model)),
        "task": model.task,
        "input": given,
        "max_tokens": asked.max_tokens,
        "memory_bytes": context.settings.prediction_memory_bytes,
    }


def _folder(context: Context, model: FineTunedModel) -> Path:
    """The model's files on this machine's disk; those of models not tried for long make room."""
    models = context.scratch("cache", "models")
    folder = models / hashlib.sha256(model.prefix.encode()).hexdigest()[:32]
    for file in model.files:
        path = folder / file["path"]
        if not path.exists():
            context.store.fetch(f"{model.prefix}/{file['path']}", path, sha256=file["sha256"])
    os.utime(folder)
    kept = sorted(models.iterdir(), key=lambda one: one.stat().st_mtime, reverse=True)
    before = time.time() - IN_USE_SECONDS
    for old in kept[MOST_MODELS:]:
        if old.stat().st_mtime < before:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _ask(request: Json, scratch: Path, seconds: float, wanted: Callable[[], None]) -> Json:
    """`python -m training.predict`: an empty environment, a process group of its own."""
    try:
        ended = child.ask(
            [sys.executable, "-P", "-m", "training.predict", str(os.getpid())],
            json.dumps(request).encode(),
            env=_environment(scratch),
            seconds=seconds,
            check=wanted,
            cwd=scratch,
        )
    except subprocess.TimeoutExpired:
        return _error("resource_limit", f"The model took longer than {seconds:,.0f} seconds.")
    if ended.returncode == 0:
        answer: Json = json.loads(ended.stdout)
        return answer
    told = ended.stderr.decode(errors="replace")[-STDERR_SHOWN:]
    log.warning("a prediction's child ended with %d: %s", ended.returncode, told)
    return _error(
        "prediction_failed",
        "The process that tried the model ended without an answer. The model may need more "
        "memory than predictions may take.",
    )


def _environment(scratch: Path) -> dict[str, str]:
    """Nothing of the parent's, so no credentials."""
    return {
        "PATH": os.defpath,
        "HOME": str(scratch),
        "LC_ALL": "C.UTF-8",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": THREADS,
    }
