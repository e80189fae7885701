"""What a trainer is started with."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from worker.trainer import Trainer


def test_kernels_are_kept_in_the_trainers_own_folder(tmp_path: Path) -> None:
    """torch's default is a folder of a known name in /tmp, from which code would be run that
    another user may have put there."""
    trainer = Trainer(tmp_path, threads=1)
    try:
        assert trainer.wait_ready(120)
        kernels = Path(psutil.Process(trainer.pid).environ()["TORCHINDUCTOR_CACHE_DIR"])
    finally:
        trainer.kill()
    assert kernels.is_relative_to(tmp_path)


def test_a_library_to_preload_that_is_not_there_keeps_no_trainer_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/nowhere/libnone.so")
    trainer = Trainer(tmp_path, threads=1)
    try:
        assert trainer.wait_ready(120)
        assert "/nowhere/libnone.so" in trainer.log_tail()
    finally:
        trainer.kill()
