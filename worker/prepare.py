"""Before the trainer starts: data, base model and checkpoint on this machine's disk.

Datasets are cached by their SHA-256 and base models by the hub's own cache, so a job that comes
back, or another on the same data, finds them here.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from core.storage import ObjectCorrupt, ObjectMissing
from models import catalogue, checkpoints, events, leases, metrics
from models.checkpoints import Checkpoint
from models.jobs import Job
from models.spec import ResolvedSpec
from worker.context import Context

log = logging.getLogger(__name__)


def job_folder(context: Context, job: Job) -> Path:
    """This attempt's own folder. Never shared between attempts, so a zombie's cannot be met."""
    return context.scratch("jobs") / f"{job.id}.{job.fence}"


def prepare(context: Context, job: Job, device: str) -> Path:
    """Fill the job folder and return it.

    Raises StorageUnavailable, ObjectCorrupt, ObjectMissing or ModelUnavailable: none of them the
    user's fault.
    """
    assert job.resolved is not None
    assert job.train_key is not None
    spec = ResolvedSpec.model_validate(job.resolved)
    folder = job_folder(context, job)
    folder.mkdir(parents=True)
    train = _dataset(context, job.train_key, spec.train_sha256)
    valid = None
    if job.valid_key is not None and spec.valid_sha256 is not None:
        valid = _dataset(context, job.valid_key, spec.valid_sha256)
    base = catalogue.pinned(context.settings, spec.model, spec.model_revision)
    model_dir = catalogue.fetch(base, context.scratch("cache", "hub"))
    resume_from = _checkpoint(context, job, folder)
    contract = {
        "job_id": job.id,
        "spec": job.resolved,
        "model_dir": str(model_dir),
        "train": str(train),
        "valid": str(valid) if valid else None,
        "resume_from": str(resume_from) if resume_from else None,
        "threads": None,
        "device": device,
    }
    (folder / "job.json").write_text(json.dumps(contract, indent=1))
    return folder


def _dataset(context: Context, key: str, sha256: str) -> Path:
    path = context.scratch("cache", "datasets") / f"{sha256}.arrow"
    if not path.exists():
        context.store.fetch(key, path, sha256=sha256)
    return path


def _checkpoint(context: Context, job: Job, folder: Path) -> Path | None:
    """The newest checkpoint whose bytes all verify, in the job folder; None to start anew.

    One that does not verify is discarded, with an event that says so.
    """
    with context.transaction() as session:
        known = checkpoints.newest_first(session, job.id)
    found: tuple[Checkpoint, Path] | None = None
    for checkpoint in known:
        target = folder / "resume" / f"step-{checkpoint.step}"
        try:
            for file in checkpoint.files:
                context.store.fetch(
                    f"{checkpoint.prefix}/{file['path']}",
                    target / file["path"],
                    sha256=file["sha256"],
                )
        except (ObjectCorrupt, ObjectMissing) as error:
            shutil.rmtree(target, ignore_errors=True)
            log.warning("checkpoint discarded: %s", error, extra={"job_id": job.id})
            with context.transaction() as session:
                leases.hold(session, job.id, job.fence)
                checkpoints.discard(session, checkpoint.id)
                events.add(
                    session,
                    job.id,
                    f"The checkpoint of step {checkpoint.step} did not verify and was discarded; "
                    "an older one is used.",
                    level="warn",
                    data={"step": checkpoint.step, "reason": error.error_code},
                )
            continue
        found = checkpoint, target
        break
    step = found[0].step if found else 0
    with context.transaction() as session:
        leases.hold(session, job.id, job.fence)
        metrics.forget_after(session, job.id, step)
        if job.attempts > 1:
            where = f"from the checkpoint of step {step}" if found else "from the start"
            events.add(session, job.id, f"Going on {where}.", data={"step": step})
    return found[1] if found else None
