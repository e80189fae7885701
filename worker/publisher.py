"""Publishes checkpoints while training goes on, and the finished model at the end.

A folder's files are uploaded, each verified against the manifest that the trainer wrote; only
then does one fenced transaction make them visible. Nothing half-written is ever shown.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import queue
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from core.storage import ObjectCorrupt, StorageUnavailable
from models import checkpoints, events, leases, registry
from models.checkpoints import Checkpoint
from models.db import Session
from models.jobs import Job
from models.leases import LeaseLost
from models.registry import FineTunedModel
from worker.context import Context
from worker.lease import Lease

log = logging.getLogger(__name__)

ATTEMPTS = 6
STATE_FILES = ("training_state.pt", "manifest.json")
"""What a checkpoint's folder holds beside the Hugging Face model."""

Stored = list[dict[str, Any]]


Manifest = dict[str, dict[str, Any]]
"""Path → `{bytes, sha256}`."""


@dataclass(frozen=True)
class Pending:
    """A checkpoint that lies complete on this machine's disk."""

    step: int
    folder: Path
    record: dict[str, Any]


class Publisher:
    """Uploads checkpoints from a thread of its own, in order, under one job's lease."""

    def __init__(self, context: Context, job: Job, project_name: str, lease: Lease) -> None:
        self._context = context
        self._job = job
        self.project_name = project_name
        self.lease = lease
        self._waiting: queue.Queue[Pending | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name=f"publish-{job.id}", daemon=True)
        self._published: set[int] = set()
        self.failure: Exception | None = None

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._drop_waiting()
        self.drain()

    def add(self, folder: Path, record: dict[str, Any]) -> None:
        """Take over a checkpoint. Hard links keep its files while the trainer goes on cleaning."""
        kept = folder.parent.parent / "publishing" / f"{folder.name}-{time.monotonic_ns()}"
        shutil.copytree(folder, kept, copy_function=os.link)
        self._waiting.put(Pending(record["step"], kept, record))

    def drain(self) -> None:
        """Wait until everything is published. Raises nothing; see `failure`."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def publish_output(self, folder: Path) -> tuple[str, Stored]:
        """Upload the finished model; its prefix in storage and its files.

        Raises StorageUnavailable.
        """
        prefix = f"{self._prefix}/output"
        return prefix, self._upload(folder, prefix, _described(folder))

    @property
    def _prefix(self) -> str:
        return f"jobs/{self._job.id}/attempts/{self._job.fence}"

    def _drop_waiting(self) -> None:
        while True:
            try:
                self._waiting.get_nowait()
            except queue.Empty:
                return

    def _work(self) -> None:
        while (pending := self._waiting.get()) is not None:
            try:
                self._publish(pending)
            except LeaseLost:
                self.lease.lost.set()
                return
            except (StorageUnavailable, ObjectCorrupt, OSError) as error:
                # Training goes on: the next checkpoint may fare better, and the end is verified.
                self.failure = error
                log.exception("checkpoint not published", extra={"job_id": self._job.id})
            finally:
                shutil.rmtree(pending.folder, ignore_errors=True)

    def _publish(self, pending: Pending) -> None:
        if pending.step in self._published:
            return  # A stop right after an interval's checkpoint makes the same one again.
        began = time.monotonic()
        manifest_text = (pending.folder / "manifest.json").read_bytes()
        manifest = json.loads(manifest_text)
        prefix = f"{self._prefix}/checkpoints/step-{pending.step}"
        stored = self._upload(pending.folder, prefix, manifest["files"])
        written = self._context.store.write_bytes(f"{prefix}/manifest.json", manifest_text)
        stored.append({"path": "manifest.json", "bytes": written.bytes, "sha256": written.sha256})
        job, record = self._job, pending.record
        name = registry.name(job.model, self.project_name, job.suffix, job.id, pending.step)
        size = sum(file["bytes"] for file in stored)
        checkpoint = Checkpoint(
            job_id=job.id,
            fence=job.fence,
            step=pending.step,
            model_id=name,
            prefix=prefix,
            files=stored,
            bytes=size,
            metrics=record["metrics"],
            reason=record["reason"],
            best=record["best"],
        )
        weights = [file for file in stored if file["path"] not in STATE_FILES]
        model = FineTunedModel(
            id=name,
            project_id=job.project_id,
            job_id=job.id,
            base_model=job.model,
            task=job.task or "",
            step=pending.step,
            prefix=prefix,
            files=weights,
            bytes=sum(file["bytes"] for file in weights),
            metrics=record["metrics"],
        )
        costs = {
            "step": pending.step,
            "bytes": size,
            "save_seconds": record["seconds"],
            "upload_seconds": round(time.monotonic() - began, 3),
            "reason": record["reason"],
        }

        def show(session: Session) -> None:
            if checkpoints.published(session, job.id, job.fence, pending.step):
                return  # Committed before, though the answer was lost.
            leases.hold(session, job.id, job.fence).failures_without_progress = 0
            checkpoints.add(session, checkpoint)
            registry.add(session, model)
            events.add(
                session,
                job.id,
                f"Checkpoint created at step {pending.step} with the model name {name}",
                data=costs,
            )

        self.lease.write(show)
        self._published.add(pending.step)

    def _upload(self, folder: Path, prefix: str, manifest: Manifest) -> Stored:
        """Store each file of the manifest, retrying with back-off; verify what was written."""
        stored: Stored = []
        for path, expected in sorted(manifest.items()):
            for attempt in range(ATTEMPTS):
                self.lease.check()
                try:
                    written = self._context.store.write_file(f"{prefix}/{path}", folder / path)
                    break
                except StorageUnavailable:
                    if attempt == ATTEMPTS - 1:
                        raise
                    log.warning("upload of %s failed, trying again", path, exc_info=True)
                    self.lease.lost.wait(2**attempt)
            if (written.bytes, written.sha256) != (expected["bytes"], expected["sha256"]):
                raise ObjectCorrupt(
                    f"{path} changed on disk after it was written: SHA-256 {written.sha256}, "
                    f"not {expected['sha256']}."
                )
            stored.append({"path": path, "bytes": written.bytes, "sha256": written.sha256})
        return stored


def _described(folder: Path) -> Manifest:
    described: Manifest = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        described[str(path.relative_to(folder))] = {
            "bytes": path.stat().st_size,
            "sha256": digest,
        }
    return described
