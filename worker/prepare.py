"""Before the trainer starts: data, base model and checkpoint on this machine's disk.

Datasets are cached by their SHA-256, base models as the hub's client does it, and encoded rows by
the trainer (`training/token_cache.py`), so a job that comes back, or another on the same data,
finds them here. What was not used for longest makes room for others.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from core.storage import ObjectCorrupt, ObjectMissing
from models import attempts, catalogue, checkpoints, events, leases, metrics
from models.checkpoints import Checkpoint
from models.db import Session
from models.jobs import Job
from models.spec import ResolvedSpec
from models.state import Desired
from worker import base_models
from worker.context import Context
from worker.lease import Lease
from worker.scratch import JOBS, make_room
from worker.waiting import while_wanted

FETCHES = 3
IN_USE_SECONDS = 3600.0
"""Within which the trainer of another worker on this disk has surely opened what was got for it."""

log = logging.getLogger(__name__)


class NotWanted(Exception):
    """The job, or the worker itself, is asked to stop: no use in fetching the rest."""


@dataclass(frozen=True)
class _Fetcher:
    """Fetches for one attempt, for as long as it is wanted."""

    context: Context
    lease: Lease

    def check(self) -> None:
        """Raises LeaseLost or NotWanted."""
        self.lease.check()
        if self.context.stopping.is_set() or self.lease.wish.desired is not Desired.RUN:
            raise NotWanted

    def fetch(self, key: str, path: Path, sha256: str) -> None:
        """Fetch what must have this hash. Wrong bytes may have gone wrong on the way, so they are
        fetched again before the object is taken for corrupt."""
        for _ in range(FETCHES - 1):
            self.check()
            try:
                return self.context.store.fetch(key, path, sha256=sha256, check=self.check)
            except ObjectCorrupt as error:
                log.warning("fetched again: %s", error)
        return self.context.store.fetch(key, path, sha256=sha256, check=self.check)

    def fetch_all(self, prefix: str, files: list[dict[str, Any]], folder: Path) -> Path:
        for file in files:
            self.fetch(f"{prefix}/{file['path']}", folder / file["path"], file["sha256"])
        return folder

    def dataset(self, key: str, sha256: str) -> Path:
        folder = self.context.scratch("cache", "datasets")
        path = folder / f"{sha256}.arrow"
        try:
            os.utime(path)
        except FileNotFoundError:
            make_room(folder, self.context.settings.dataset_cache_bytes, IN_USE_SECONDS)
            self.fetch(key, path, sha256)
        return path


def job_folder(context: Context, job: Job) -> Path:
    """This attempt's own folder. Never shared between attempts, so a zombie's cannot be met."""
    return context.scratch(JOBS) / f"{job.id}.{job.fence}"


def prepare(context: Context, job: Job, lease: Lease, folder: Path, device: str) -> None:
    """Fill the job folder.

    Raises StorageUnavailable, ObjectCorrupt, ObjectMissing, ModelUnavailable or OSError, none of
    them the user's fault; LeaseLost, and NotWanted as soon as that is known, whatever hangs.
    """
    fetcher = _Fetcher(context, lease)
    while_wanted(lambda: _fill(fetcher, job, folder, device), fetcher.check)


def _fill(fetcher: _Fetcher, job: Job, folder: Path, device: str) -> None:
    assert job.resolved is not None
    assert job.train_key is not None
    context, spec = fetcher.context, ResolvedSpec.model_validate(job.resolved)
    train = fetcher.dataset(job.train_key, spec.train_sha256)
    valid = None
    if job.valid_key is not None and spec.valid_sha256 is not None:
        valid = fetcher.dataset(job.valid_key, spec.valid_sha256)
    if job.origin is not None:
        model_dir = fetcher.fetch_all(job.origin["prefix"], job.origin["files"], folder / "origin")
    else:
        fetcher.check()
        base = catalogue.pinned(context.settings, spec.model, spec.model_revision)
        model_dir = base_models.obtain(context, base, catalogue.WEIGHT_FILES, folder, fetcher.check)
    resume_from = _checkpoint(fetcher, job, folder)
    room, tokens = context.settings.token_cache_bytes, context.scratch("cache", "tokens")
    make_room(tokens, room)
    contract = {
        "job_id": job.id,
        "spec": job.resolved,
        "model_dir": str(model_dir),
        "train": str(train),
        "valid": str(valid) if valid else None,
        "resume_from": str(resume_from) if resume_from else None,
        "threads": None,
        "device": device,
        "token_cache": str(tokens) if room else None,
        **_ranks(context, job, device),
    }
    (folder / "job.json").write_text(json.dumps(contract, indent=1))


def _ranks(context: Context, job: Job, device: str) -> dict[str, Any]:
    """How many processes share the job's rows, and whether they share the weights as well."""
    asked = job.request.get("resources") or {}
    on_gpus = asked.get("gpus") or 1
    return {
        "ranks": on_gpus if device == "cuda" else context.settings.cpu_ranks,
        "sharding": asked.get("sharding", "none"),
    }


def _checkpoint(fetcher: _Fetcher, job: Job, folder: Path) -> Path | None:
    """The newest checkpoint whose bytes all verify, in the job folder; None to start anew.

    One that does not verify is discarded, with an event that says so.
    """
    lease = fetcher.lease
    found: tuple[Checkpoint, Path] | None = None
    for checkpoint in lease.write(lambda session: checkpoints.newest_first(session, job.id)):
        target = folder / "resume" / f"step-{checkpoint.step}"
        try:
            fetcher.fetch_all(checkpoint.prefix, checkpoint.files, target)
        except (ObjectCorrupt, ObjectMissing) as error:
            shutil.rmtree(target, ignore_errors=True)
            # In a store that has lost the data set too (a folder not mounted), the checkpoint may
            # well come back: this raises then.
            assert job.train_key is not None
            fetcher.context.store.size(job.train_key)
            log.warning("checkpoint discarded: %s", error, extra={"job_id": job.id})
            lease.write(partial(_discard, job, checkpoint, error.error_code))
            continue
        found = checkpoint, target
        break
    lease.write(partial(_note_beginning, job, found[0].step if found else 0))
    return found[1] if found else None


def _discard(job: Job, checkpoint: Checkpoint, reason: str, session: Session) -> None:
    leases.hold(session, job.id, job.fence)
    checkpoints.discard(session, checkpoint.id)
    events.add(
        session,
        job.id,
        f"The checkpoint of step {checkpoint.step} did not verify and was discarded; "
        "an older one is looked for.",
        level="warn",
        data={"step": checkpoint.step, "reason": reason},
        event_id=f"ftevent-{checkpoint.id}",
    )


def _note_beginning(job: Job, step: int, session: Session) -> None:
    """The series ends where the attempt begins: what lies beyond is computed again."""
    leases.hold(session, job.id, job.fence)
    metrics.forget_after(session, job.id, step)
    attempts.note(session, job.id, job.fence, resumed_from_step=step)
    if job.attempts > 1:
        where = f"from the checkpoint of step {step}" if step else "from the start"
        events.add(
            session,
            job.id,
            f"Going on {where}.",
            data={"step": step},
            event_id=f"ftevent-{job.id}.{job.fence}",
        )
