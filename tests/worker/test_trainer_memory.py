from __future__ import annotations

import ctypes.util
import time
from pathlib import Path

import pytest

from worker import memory
from worker.trainer import Trainer

LIBRARY = ctypes.util.find_library("tcmalloc_minimal")


def maps(trainer: Trainer) -> str:
    """The files that are mapped into a trainer's memory once libc is, which comes last."""
    deadline = time.monotonic() + 30
    while "libc.so" not in (found := Path(f"/proc/{trainer.pid}/maps").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.mark.skipif(LIBRARY is None, reason="needs libtcmalloc-minimal4")
def test_trainers_take_their_memory_from_tcmalloc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    trainer = Trainer(tmp_path, threads=1)
    try:
        assert "tcmalloc" in maps(trainer)
    finally:
        trainer.kill()


@pytest.mark.parametrize("chosen", ["", "libanl.so.1"])
def test_what_whoever_runs_the_worker_chose_is_what_trainers_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setenv("LD_PRELOAD", chosen)
    trainer = Trainer(tmp_path, threads=1)
    try:
        found = maps(trainer)
        assert "tcmalloc" not in found
        assert ("libanl" in found) is bool(chosen)
    finally:
        trainer.kill()


def test_a_machine_without_it_starts_trainers_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr(memory, "ALLOCATORS", ("no_such_allocator",))
    monkeypatch.delenv(memory.KERNELS, raising=False)
    assert memory.environment() == {memory.KERNELS: memory.KERNELS_KEPT}


def test_kernels_are_kept_in_the_number_that_whoever_runs_the_worker_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(memory.KERNELS, "77")
    trainer = Trainer(tmp_path, threads=1)
    try:
        environment = Path(f"/proc/{trainer.pid}/environ").read_text().split("\0")
    finally:
        trainer.kill()
    assert f"{memory.KERNELS}=77" in environment
