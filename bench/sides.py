"""What the benchmarks of training share: both sides in processes of their own, in turn."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from worker import memory

RESULT = "RESULT "
OURS = ("engine", "compiled")
"""How the names of the engine's own sides begin: they get what the service gives its trainers."""
Measured = dict[str, float]


def report(**values: float) -> None:
    """Called in the child: hand these numbers to the parent, with the peak memory in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(RESULT + json.dumps(values | {"peak_mb": peak}), flush=True)


def measure(module: str, side: str, *options: object) -> Measured:
    """Run one side of a benchmark in a fresh process; what it reported."""
    command = [sys.executable, "-W", "ignore", "-m", module, "--side", side, *map(str, options)]
    env = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1",
           "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    if side.startswith(OURS):
        env |= memory.environment()
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    measured: Measured = json.loads(lines[-1].removeprefix(RESULT))
    return measured


def compare(
    module: str, sides: list[str], rounds: int, *options: object
) -> dict[str, dict[str, float]]:
    """Every side in each round, in turn; the medians of what they reported."""
    runs: dict[str, list[Measured]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            runs[side].append(measure(module, side, *options))
    return {
        side: {name: statistics.median(run[name] for run in of_side) for name in of_side[0]}
        for side, of_side in runs.items()
    }


def machine() -> str:
    """The machine and how busy it was: a figure from a busy one means little."""
    load = os.getloadavg()[0]
    return (
        f"{platform.machine()}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total >> 30} "
        f"GiB; Python {platform.python_version()}; load average at the end {load:.1f} "
        "(this benchmark's own included)"
    )


def table(rows: dict[str, dict[str, float]], columns: dict[str, str], to: dict[str, str]) -> str:
    """A Markdown table of the sides; `to` names, for a side, the one that its ratio is of."""
    first = next(iter(columns))
    lines = [
        f"| side | {' | '.join(columns.values())} | ratio |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for side, values in rows.items():
        numbers = " | ".join(f"{values[n]:.4g}" if n in values else "" for n in columns)
        of = rows[to[side]][first] if side in to else None
        ratio = f"{values[first] / of:.2f} x {to[side]}" if of else ""
        lines.append(f"| {side} | {numbers} | {ratio} |")
    return "\n".join(lines)


def engine_metrics(folder: Path, job: Any, skip: int) -> Measured:
    """`tokens_per_second` (real ones) and `samples_per_second` of a run of ours, by the work and
    the time of its steps after the first `skip`; its last training `loss`; and `utilisation`, the
    percentage that its FLOPs in those steps, by those of a token in the whole run, are of the
    device's peak (none of a run of less than 10 seconds).
    """
    from training.control import Control
    from training.loop import train
    from training.records import Records

    path = folder / "records.jsonl"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        train(job, Records(fd), Control())
    finally:
        os.close(fd)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    points = [r["values"] for r in records if r["type"] == "metrics" and r["split"] == "train"]
    counts = [r["trained_tokens"] for r in records if r["type"] == "progress"]
    steps = [
        (after - before, point)
        for before, after, point in zip([0, *counts], counts, points, strict=False)
    ][skip:]
    tokens = sum(of_step for of_step, _ in steps)
    times = [of_step / point["tokens_per_second"] for of_step, point in steps]
    samples = sum(t * p["samples_per_second"] for t, (_, p) in zip(times, steps, strict=True))
    seconds = sum(times)
    found = {
        "tokens_per_second": tokens / seconds,
        "samples_per_second": samples / seconds,
        "loss": points[-1]["loss"],
    }
    for told in (r.get("data", {}) for r in records if r["type"] == "log"):
        if "utilisation" in told:
            share = told["utilisation"] / told["tokens_per_second"]
            found["utilisation"] = 100 * share * found["tokens_per_second"]
    return found
