"""How true the times are that a job tells: before it runs, and at a fifth of its way.

A live service runs real jobs one after another, in turn of texts that are all alike and of texts
from four to two hundred words, every other pair with a validation file and an evaluation each half
epoch. Of each the estimate before running (with its interval) and `estimated_finish` at 20 % are
printed beside the truth; at the end the medians, and how many were within 15 and 40 %.

    python -m bench.time_left [RUNS] [ROWS]
"""

from __future__ import annotations

import platform
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import Service, start_service, stop_service

MODEL = "all-MiniLM-L6-v2"
WORDS = [
    "a",
    "the",
    "film",
    "plot",
    "cast",
    "scene",
    "music",
    "slow",
    "fine",
    "warm",
    "dull",
    "bright",
    "long",
    "short",
    "end",
    "start",
]
EPOCHS, BATCH = 3, 16
ASKED_AT = 20.0
"""Percent."""
POLL_SECONDS = 0.25
ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Told:
    kind: str
    before: float
    low: float
    high: float
    took: float
    left_told: float
    left: float

    @property
    def before_error(self) -> float:
        return self.before / self.took - 1

    @property
    def left_error(self) -> float:
        return self.left_told / self.left - 1


def text(kind: str, draw: random.Random) -> str:
    words = 60 if kind == "uniform" else round(4 * 50 ** draw.random())
    return " ".join(draw.choices(WORDS, k=words))


def upload(http: httpx.Client, kind: str, rows: int, seed: int) -> str:
    draw = random.Random(seed)
    lines = [f"{text(kind, draw)},{draw.choice(('good', 'bad'))}" for _ in range(rows)]
    content = "\n".join(["text,label", *lines]).encode()
    answer = http.post(
        "/files", data={"purpose": "fine-tune"}, files={"file": ("rows.csv", content)}
    )
    return str(answer.raise_for_status().json()["id"])


def estimated(http: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    while (answer := http.post("/fine_tuning/jobs/estimate", json=body)).status_code == 409:
        time.sleep(1)
    told: dict[str, Any] = answer.raise_for_status().json()
    return told


def run(http: httpx.Client, kind: str, rows: int, seed: int, evaluated: bool) -> Told:
    steps = rows // BATCH
    chosen = {"n_epochs": EPOCHS, "batch_size": BATCH, "eval_every": max(1, steps // 2)}
    body: dict[str, Any] = {
        "model": MODEL,
        "task": "text-classification",
        "training_file": upload(http, kind, rows, seed),
        "method": {"type": "supervised", "supervised": {"hyperparameters": chosen}},
    }
    if evaluated:
        body["validation_file"] = upload(http, kind, rows // 4, seed + 1000)
    before = estimated(http, body)
    job_id = http.post("/fine_tuning/jobs", json=body).raise_for_status().json()["id"]
    asked_at = finish = 0.0
    while True:
        job = http.get(f"/fine_tuning/jobs/{job_id}").raise_for_status().json()
        percent = (job["progress"] or {}).get("percent", 0.0)
        if not asked_at and percent >= ASKED_AT and job["estimated_finish"]:
            asked_at, finish = time.time(), job["estimated_finish"]
        if job["status"] in ENDED:
            break
        time.sleep(POLL_SECONDS)
    assert job["status"] == "succeeded", job["error"]
    assert asked_at, "the job ended before it was asked: give it more rows"
    return Told(
        kind=f"{kind}{', evaluated' if evaluated else ''}",
        before=before["seconds"],
        low=before["seconds_low"],
        high=before["seconds_high"],
        took=job["finished_at"] - job["started_at"],
        left_told=finish - asked_at,
        left=job["finished_at"] - asked_at,
    )


def bench(service: Service, runs: int, rows: int) -> None:
    print(f"{platform.machine()}, Python {platform.python_version()}; {MODEL}, {rows} rows,")
    print(f"{EPOCHS} epochs, batch {BATCH}. Seconds; told and true.")
    print(f"{'':<20} {'before (interval)':>24} {'took':>6} {'off':>6} {'left':>7} {'true':>6} off")
    told = []
    headers = {"Authorization": f"Bearer {service.key}"}
    with httpx.Client(base_url=service.base_url, headers=headers, timeout=60) as http:
        for number in range(runs):
            kind = ("uniform", "mixed")[number % 2]
            one = run(http, kind, rows, seed=number, evaluated=number % 4 >= 2)
            told.append(one)
            span = f"{one.before:.0f} ({one.low:.0f} to {one.high:.0f})"
            print(
                f"{one.kind:<20} {span:>24} {one.took:6.0f} {one.before_error:+6.0%} "
                f"{one.left_told:7.1f} {one.left:6.1f} {one.left_error:+.0%}",
                flush=True,
            )
    at_fifth = [abs(one.left_error) for one in told]
    after_first = [abs(one.before_error) for one in told[1:]]
    print(f"at 20 %: median {statistics.median(at_fifth):.1%} off, the worst {max(at_fifth):.1%};")
    print(f"  within 15 %: {sum(error <= 0.15 for error in at_fifth)} of {len(at_fifth)}")
    if after_first:
        within = sum(error <= 0.4 for error in after_first)
        print(
            f"before, once there was a past run: median {statistics.median(after_first):.1%} off;"
        )
        print(f"  within 40 %: {within} of {len(after_first)}")


def main(runs: int, rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        service = start_service(Path(folder) / "data")
        try:
            bench(service, runs, rows)
        finally:
            stop_service(service)


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    main(*(numbers + [12, 640][len(numbers) :]))
