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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from core import ids
from core.storage import ObjectCorrupt, ObjectMissing, StorageUnavailable
from models import checkpoints, events, leases, registry, retention
from models.checkpoints import Checkpoint
from models.db import Session
from models.jobs import Job
from models.leases import LeaseLost
from models.registry import FineTunedModel
from worker.context import Context
from worker.lease import Lease
from worker.waiting import POLL_SECONDS, GivenUp, Wait

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 600.0
"""How long an upload is tried again before it is given up, while the job is wanted here: storage
comes back, GPU hours don't."""
LONGEST_WAIT_SECONDS = 30.0
MOST_WAITING = 2
"""Checkpoints that wait for their upload. Beyond it the oldest is skipped: the disk is finite, and
only the newest is of use to go on from."""
STATE_FILES = ("training_state.pt", "manifest.json")
BEST_FOLDER = "best/"
"""What a checkpoint's folder holds beside the Hugging Face model."""

STORAGE_FAULTS = (StorageUnavailable, ObjectCorrupt, ObjectMissing)

Stored = list[dict[str, Any]]


Manifest = dict[str, dict[str, Any]]
"""Path → `{bytes, sha256}`."""


@dataclass(frozen=True)
class Pending:
    """A checkpoint that lies complete on this machine's disk."""

    folder: Path
    record: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.record["step"])


class Publisher:
    """Uploads checkpoints from a thread of its own, in order, under one job's lease."""

    def __init__(self, context: Context, job: Job, project_name: str, lease: Lease) -> None:
        self._context = context
        self._job = job
        self.project_name = project_name
        self.lease = lease
        self.wait = Wait(context, lease, context.settings.stop_upload_seconds)
        """For the storage, by who comes to the attempt's end."""
        self._waiting: queue.Queue[Pending | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name=f"publish-{job.id}", daemon=True)
        self._published: set[int] = set()
        self._left: set[int] = set()
        """Steps whose checkpoints have yet to be published or to be told as lost."""
        self._showing = threading.Lock()
        """Held while one is made visible, and while all that is left is given up."""
        self._trace = context.tracing.current()  # of the attempt, whose thread this one is not

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drain()

    def keep(self, folder: Path, record: dict[str, Any]) -> Pending | None:
        """Take over a checkpoint: hard links keep its files while the trainer goes on cleaning.

        None when the trainer, two checkpoints ahead by now, has cleaned it away already.
        """
        kept = folder.parent.parent / "publishing" / f"{folder.name}-{time.monotonic_ns()}"
        try:
            shutil.copytree(folder, kept, copy_function=os.link)
        except OSError:
            if folder.exists():
                raise
            shutil.rmtree(kept, ignore_errors=True)
            return None
        return Pending(kept, record)

    def add(self, pending: Pending) -> list[int]:
        """Publish a checkpoint in its turn; the steps of those that are skipped for it.

        All that was reported before it must have been written: it makes these steps final.
        """
        skipped = []
        while self._waiting.qsize() >= MOST_WAITING:
            try:
                oldest = self._waiting.get_nowait()
            except queue.Empty:
                break
            assert oldest is not None
            shutil.rmtree(oldest.folder, ignore_errors=True)
            self._left.discard(oldest.step)
            skipped.append(oldest.step)
        self._left.add(pending.step)
        self._waiting.put(pending)
        return skipped

    def drain(self) -> None:
        """Wait until everything is published, given up, or the lease is lost. Raises nothing.

        What is given up may hang in the store for longer. It is never published then.
        """
        self._waiting.put(None)
        try:
            while self._thread.is_alive():
                self.wait.check()
                self._thread.join(POLL_SECONDS)
        except GivenUp:
            with self._showing:
                left, self._left = sorted(self._left), set()
            if left:
                why = "the object storage had not taken it when the job had to stop"
                self._tell_lost(left, why)
        except LeaseLost:
            log.warning("nothing more is published", extra={"job_id": self._job.id})

    def publish_output(self, folder: Path) -> tuple[str, Stored]:
        """Upload the finished model; its prefix in storage and its files.

        Raises StorageUnavailable, ObjectCorrupt, LeaseLost or GivenUp.
        """
        prefix = f"{self._prefix}/output"
        return prefix, self._upload(folder, prefix, _described(folder))

    @property
    def _prefix(self) -> str:
        return f"jobs/{self._job.id}/attempts/{self._job.fence}"

    def _work(self) -> None:
        while (pending := self._waiting.get()) is not None:
            span = self._context.tracing.span(
                "publish checkpoint", parent=self._trace, step=pending.step
            )
            try:
                with span:
                    self._publish(pending)
            except (LeaseLost, GivenUp):
                return
            except Exception as error:
                # Training goes on: the next checkpoint may fare better, and the end is verified.
                log.exception("checkpoint not published", extra={"job_id": self._job.id})
                self._left.discard(pending.step)
                of_storage = isinstance(error, STORAGE_FAULTS)
                why = "the object storage did not take it" if of_storage else type(error).__name__
                self._tell_lost([pending.step], why)
            finally:
                shutil.rmtree(pending.folder, ignore_errors=True)

    def _tell_lost(self, steps: list[int], why: str) -> None:
        """Write it down; it matters no more once the lease is lost."""
        told = {step: ids.event() for step in steps}

        def tell(session: Session) -> None:
            leases.hold(session, self._job.id, self._job.fence)
            for step, event_id in told.items():
                events.add(
                    session,
                    self._job.id,
                    f"The checkpoint of step {step} is lost: {why}.",
                    level="warn",
                    data={"step": step},
                    event_id=event_id,
                )

        with suppress(LeaseLost):
            self.lease.write(tell)

    def _publish(self, pending: Pending) -> None:
        if pending.step in self._published:
            self._left.discard(pending.step)
            return  # A stop right after an interval's checkpoint makes the same one again.
        began = time.monotonic()
        manifest_path = pending.folder / "manifest.json"
        manifest = json.loads(manifest_path.read_bytes())["files"]
        prefix = f"{self._prefix}/checkpoints/step-{pending.step}"
        stored = self._upload(
            pending.folder, prefix, manifest | {manifest_path.name: describe(manifest_path)}
        )
        job, record = self._job, pending.record
        name = registry.name(job.base_model, self.project_name, job.suffix, job.id, pending.step)
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
        weights = [file for file in stored if _is_of_model(file["path"])]
        model = FineTunedModel(
            id=name,
            project_id=job.project_id,
            job_id=job.id,
            base_model=job.base_model,
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
            checkpoints.supersede(session, job.id, pending.step)
            checkpoints.add(session, checkpoint)
            registry.add(session, model)
            settings = self._context.settings
            retention.apply(
                session,
                job.id,
                keep_last=settings.checkpoint_keep_last,
                keep_every=settings.checkpoint_keep_every,
            )
            events.add(
                session,
                job.id,
                f"Checkpoint created at step {pending.step} with the model name {name}",
                data=costs,
            )

        with self._showing:
            self.wait.require()
            self.lease.write(show)
            self._published.add(pending.step)
            self._left.discard(pending.step)

    def _upload(self, folder: Path, prefix: str, manifest: Manifest) -> Stored:
        """Store each file of the manifest and read it back: the manifest's bytes or none."""
        for path, expected in sorted(manifest.items()):
            store_file(
                self._context, self.wait, folder / path, f"{prefix}/{path}", expected["sha256"]
            )
        return [{"path": path, **expected} for path, expected in sorted(manifest.items())]


def store_file(
    context: Context,
    wait: Wait,
    path: Path,
    key: str,
    sha256: str,
    patience: float = PATIENCE_SECONDS,
) -> None:
    """Upload a file until it is stored as it should be.

    Raises StorageUnavailable or ObjectCorrupt once patience, in seconds, has run out, LeaseLost, or
    GivenUp.
    """
    began, pause = time.monotonic(), 1.0
    here, furthest = 0, 0

    def moved() -> None:
        nonlocal here, furthest
        here += 1
        # A store that takes the same beginning again and again gets nowhere.
        if here > furthest:
            furthest = here
            wait.moved()

    while True:
        wait.require()
        here = 0
        try:
            if context.store.write_file(key, path, moved).sha256 == sha256:
                context.store.verify(key, sha256=sha256, moved=moved)
                return
            break
        except STORAGE_FAULTS as error:
            if time.monotonic() - began > patience:
                raise
            log.warning("upload tried again: %s", error, extra={"job_id": wait.lease.job_id})
            wait.lease.lost.wait(pause)
            pause = min(2 * pause, LONGEST_WAIT_SECONDS)
    raise ObjectCorrupt(f"{path.name} changed on this disk after it was written.")


def _is_of_model(path: str) -> bool:
    return path not in STATE_FILES and not path.startswith(BEST_FOLDER)


def _described(folder: Path) -> Manifest:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): describe(path) for path in paths}


def describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}
