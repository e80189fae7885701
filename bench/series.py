"""A long metric series through the API: all of its points, and few that look the same.

A live API on a database of its own gets one job with STEPS steps of five series, written as a
worker writes them. Of each way of asking the median of five answers is printed, with its bytes.

    python -m bench.series [STEPS]
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from core.settings import Settings
from migrations import upgrade
from models import keys, metrics
from models.db import sync_engine, transaction
from server.embedded import embedded
from tests.api.conftest import running
from tests.rows import make_job

ROUNDS = 5
FLUSH = 2000
"""Points of one write."""
WAYS = {
    "points=2000": "points=2000",
    "points=2000, loss alone": "points=2000&names=loss",
    "one page of 1,000": "limit=1000",
    "all as Arrow": "format=arrow",
    "all as CSV": "format=csv",
}


def fill(engine: object, job_id: str, steps: int) -> None:
    random = np.random.default_rng(0)
    loss = np.exp(-np.arange(steps) / steps) + random.normal(0, 0.05, steps)
    moment = datetime.now(UTC)
    for start in range(0, steps, FLUSH):
        points = [
            {
                "split": "train",
                "step": step + 1,
                "values": {
                    "loss": float(loss[step]),
                    "accuracy": 1 - float(loss[step]) / 2,
                    "learning_rate": 5e-5 * (1 - step / steps),
                    "grad_norm": 1.0 + float(loss[step]),
                    "tokens_per_second": 1000.0 + step % 7,
                },
                "created_at": moment,
            }
            for step in range(start, min(start + FLUSH, steps))
        ]
        with transaction(engine) as session:  # type: ignore[arg-type]
            metrics.write(session, job_id, points)


def main(steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder, embedded(Path(folder) / "servers") as servers:
        upgrade(servers.database_url)
        settings = Settings(
            data_dir=Path(folder) / "data",
            database_url=servers.database_url,
            redis_url=servers.redis_url,
            hub=False,
        )
        engine = sync_engine(servers.database_url)
        with transaction(engine) as session:
            row, key = keys.create(
                session, settings.signing_secret(), project="default", name="bench"
            )
        job_id = make_job(engine, row.project_id)
        began = time.perf_counter()
        fill(engine, job_id, steps)
        print(f"{platform.machine()}, Python {platform.python_version()}: {steps:,} steps of five")
        print(f"series, written in {time.perf_counter() - began:.1f} s")
        with running(settings) as url:
            ask(f"{url}/v1/fine_tuning/jobs/{job_id}/metrics", key)
        engine.dispose()


def ask(url: str, key: str) -> None:
    import httpx

    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(headers=headers, timeout=600) as http:
        for name, query in WAYS.items():
            times, size = [], 0
            rounds = 1 if name.startswith("all") else ROUNDS
            for _ in range(rounds):
                began = time.perf_counter()
                answer = http.get(f"{url}?{query}")
                times.append(time.perf_counter() - began)
                answer.raise_for_status()
                size = len(answer.content)
            print(f"{name:<26} {statistics.median(times) * 1000:9.1f} ms {size / 1e6:9.2f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
