"""Memory of whole runs and of allocators, in processes of their own."""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.cases import CASES, write_rows
from tests.training.driver import Trainer
from tests.training.material import JobFolder, of_type

CASE = next(case for case in CASES if case.name == "segments")
SIDE = 96
"""Of the images as the model sees them. The classes of one, as numbers of 64 bits, take 72 KiB: ten
times the rows would be felt if they were kept."""


def peak_of(path: Path, base: Path, rows: int) -> int:
    """Bytes of a run that has evaluated so many rows, as its next step tells."""
    write_rows(path / "train.arrow", CASE.task, CASE.rows(8, 0))
    write_rows(path / "valid.arrow", CASE.task, CASE.rows(rows, 1))
    plan = CASE.spec(
        total_steps=2, eval_every=1, checkpoint_every=100, train_rows=8, valid_rows=rows
    )
    with Trainer() as trainer:
        trainer.start(JobFolder(path, base).write(plan))
        assert trainer.finish()["type"] == "done", trainer.log()
        return int(of_type(trainer.records, "progress", step=2)[0]["peak_memory_bytes"])


@pytest.mark.slow
def test_an_evaluation_takes_as_much_memory_whatever_its_rows(tmp_path: Path) -> None:
    base = CASE.base(tmp_path / "base")
    config = json.loads((base / "preprocessor_config.json").read_text())
    config["size"] = {"height": SIDE, "width": SIDE}
    (base / "preprocessor_config.json").write_text(json.dumps(config))
    few, many = (peak_of(tmp_path / str(rows), base, rows) for rows in (100, 1000))
    assert many < 1.05 * few


FREED = 200_000_000
PIECES = f"""
import psutil, torch
from training import devices

memory = psutil.Process().memory_info
pieces = [torch.ones(10_000) for _ in range({FREED} // 40_000)]
last = torch.ones(10_000)  # glibc would give back by itself what nothing lies above
del pieces
before = memory().rss
devices.release_pages()
print(before - memory().rss)
"""


@pytest.mark.parametrize("library", ["", ctypes.util.find_library("tcmalloc_minimal")])
def test_what_was_freed_goes_back_to_the_system(library: str | None) -> None:
    if library is None:
        pytest.skip("needs libtcmalloc-minimal4")
    env = os.environ | {"LD_PRELOAD": library}
    done = subprocess.run([sys.executable, "-c", PIECES], env=env, capture_output=True, check=True)
    assert int(done.stdout) > 0.8 * FREED
