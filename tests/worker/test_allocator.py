from __future__ import annotations

import ctypes.util
import time
from pathlib import Path

import pytest

from worker import allocator
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
@pytest.mark.parametrize(("chosen", "expected"), [(None, True), ("", False)])
def test_trainers_take_their_memory_from_tcmalloc_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: bool
) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    if chosen is not None:
        monkeypatch.setenv("LD_PRELOAD", chosen)
    trainer = Trainer(tmp_path, threads=1)
    try:
        assert ("tcmalloc" in maps(trainer)) is expected
    finally:
        trainer.kill()


def test_a_library_that_whoever_runs_the_worker_chose_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "libjemalloc.so.2")
    assert allocator.environment() == {"LD_PRELOAD": "libjemalloc.so.2"}
