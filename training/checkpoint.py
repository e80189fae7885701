"""Checkpoints that are whole or absent.

A checkpoint's files are written into `step-N.tmp/`, for which training waits. Then they get a
manifest with the SHA-256 of each, all is flushed to the disk, and the folder is renamed to
`step-N/`: that takes longer, and training goes on meanwhile. A kill at any point leaves either a
`.tmp`, which nobody reads, or a checkpoint whose manifest verifies.

A checkpoint needs no other to resume from: where its own weights are not the best so far, the best
ones lie in it as `best/`, hard links to the files of the checkpoint that first held them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.failures import CheckpointCorrupt

MANIFEST = "manifest.json"
STATE = "training_state.pt"
BEST = "best"
NOT_THE_MODEL = shutil.ignore_patterns(MANIFEST, STATE, BEST)
"""What a checkpoint holds beside a plain Hugging Face folder, as copytree takes it."""
KEEP_NEWEST = 2


@dataclass(frozen=True)
class Written:
    path: Path
    bytes: int
    seconds: float
    """From the first byte until it was complete."""


@dataclass(frozen=True)
class Filled:
    """A checkpoint whose files are written, but may not be on the disk yet. Nobody reads it, and
    nothing of the run is needed any more to complete it."""

    path: Path
    """Where it will lie."""
    step: int
    started: float

    def seal(self) -> Written:
        """Describe its files, flush them to the disk, and let it appear. On an error nothing is
        left behind."""
        folder = _unfinished(self.path)
        with _removed_on_error(folder):
            files = {name: _describe(folder / name) for name in _names(folder)}
            manifest = json.dumps({"step": self.step, "files": files}, indent=1)
            (folder / MANIFEST).write_text(manifest)
            _finish(self.path)
        size = sum(file["bytes"] for file in files.values())
        return Written(self.path, size, time.monotonic() - self.started)


def fill(
    checkpoints: Path,
    step: int,
    *,
    save_model: Callable[[Path], None],
    state: dict[str, Any],
    best: Path | None,
) -> Filled:
    """Write the files of `step-N`: the model's folder and the training state.

    `best` is the folder of better weights than these, if there are any. `state` may hold
    tensors, numbers, strings and containers of them: it is read back with `weights_only=True`. On
    an error nothing is left behind.
    """
    started = time.monotonic()
    path = checkpoints / f"step-{step}"
    folder = _begin(path)
    with _removed_on_error(folder):
        save_model(folder)
        with (folder / STATE).open("wb") as file:
            torch.save(state, file)
        if best is not None:
            shutil.copytree(best, folder / BEST, ignore=NOT_THE_MODEL, copy_function=_link)
    return Filled(path, step, started)


def write_folder(final: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder whole or not at all, in place of an older one of its name."""
    folder = _begin(final)
    with _removed_on_error(folder):
        fill(folder)
        _finish(final)


def _begin(final: Path) -> Path:
    """An empty folder, to become this one."""
    folder = _unfinished(final)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _finish(final: Path) -> None:
    folder = _unfinished(final)
    for path in (*folder.rglob("*"), folder):
        # safetensors writes files that a supervisor under another user could not read.
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)
    _sync(final.parent)


@contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def verify(checkpoint: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, every byte checked against it. Raises CheckpointCorrupt."""
    try:
        manifest: dict[str, Any] = json.loads((checkpoint / MANIFEST).read_bytes())
        for name, expected in manifest["files"].items():
            if _describe(checkpoint / name) != expected:
                raise CheckpointCorrupt(f"{checkpoint.name}/{name} is not what was written.")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointCorrupt(f"{checkpoint.name} cannot be read: {error}") from error
    return manifest


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The training state of a checkpoint that verifies, its tensors on the CPU."""
    verify(checkpoint)
    state: dict[str, Any] = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    return state


def clear(job_folder: Path, after_step: int) -> None:
    """Remove what a killed run left half written, and what it wrote after this step.

    The run will write the latter again, and until then it must not pass for the newest.
    """
    for path in (_unfinished(job_folder / "output"), *job_folder.glob("checkpoints/step-*.tmp")):
        shutil.rmtree(path, ignore_errors=True)
    for path in _complete(job_folder / "checkpoints"):
        if _step(path) > after_step:
            _remove(path)


def retire(checkpoints: Path) -> None:
    """Remove all but the newest two checkpoints."""
    for path in _complete(checkpoints)[:-KEEP_NEWEST]:
        _remove(path)


def best_weights(checkpoint: Path) -> Path:
    """The folder of the best weights that a checkpoint knows: its own, or those beside them."""
    best = checkpoint / BEST
    return best if best.exists() else checkpoint


def _link(source: str, target: str) -> None:
    """Link a file that nobody will write to again; copy it where links cannot reach."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _complete(checkpoints: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted((p for p in checkpoints.glob("step-*") if p.suffix != ".tmp"), key=_step)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp")


def _remove(path: Path) -> None:
    """Remove a checkpoint so that a kill half way leaves nothing that looks like one."""
    shutil.rmtree(path.rename(_unfinished(path)))


def _names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
