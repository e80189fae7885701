"""Many people watch one run: from the trainer's record to each of their screens.

A live service trains a real model; STREAMS followers read its event stream, and each of them is
cut off once, at a step of its own, and comes back with the id of the last message it saw. Printed
are the latency of the points that came live (a point that was there before its follower is none),
the memory of the API's process before and with all followers, and what was missing or came twice.

    python -m bench.streams [STREAMS] [STEPS]
"""

from __future__ import annotations

import asyncio
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from bench.time_left import upload
from tests.conftest import Service, start_service, stop_service

MODEL, ROWS, BATCH = "all-MiniLM-L6-v2", 320, 2


@dataclass
class Follower:
    """One of them: what it saw, and how late."""

    cut_at: int
    seen: Counter[int] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)
    cursor: str = ""
    over: bool = False

    async def follow(self, http: httpx.AsyncClient, path: str) -> None:
        while not self.over:
            headers = {"Accept": "text/event-stream"}
            if self.cursor:
                headers["Last-Event-ID"] = self.cursor
            began = time.time()
            async with http.stream("GET", path, headers=headers, timeout=None) as answer:
                answer.raise_for_status()
                message: dict[str, str] = {}
                async for line in answer.aiter_lines():
                    if line:
                        name, _, value = line.partition(": ")
                        message[name] = value
                        continue
                    # A message is whole, and seen, when its empty line has come.
                    self.cursor = message.get("id", self.cursor)
                    kind = message.get("event")
                    self.over = self.over or kind == "end"
                    if kind == "metrics" and self._took(message["data"], began):
                        break
                    message = {}

    def _took(self, message: str, began: float) -> bool:
        """Whether the line is to be cut now."""
        point = json.loads(message)
        if point["split"] != "train":
            return False
        self.seen[point["step"]] += 1
        if point["created_at"] > began:
            self.late.append(time.time() - point["created_at"])
        return self.seen.total() == self.cut_at


def api_process(service: Service) -> psutil.Process:
    (found,) = (
        child
        for child in psutil.Process(service.process.pid).children()
        if "api" in child.cmdline()
    )
    return found


def submit(service: Service, steps: int) -> str:
    headers = {"Authorization": f"Bearer {service.key}"}
    with httpx.Client(base_url=service.base_url, headers=headers, timeout=60) as http:
        body = {
            "model": MODEL,
            "training_file": upload(http, "uniform", ROWS, seed=0),
            "hyperparameters": {"max_steps": steps, "batch_size": BATCH, "checkpoint_every": steps},
        }
        answer = http.post("/fine_tuning/jobs", json=body).raise_for_status()
        return str(answer.json()["id"])


async def bench(service: Service, job_id: str, streams: int, steps: int) -> int:
    headers = {"Authorization": f"Bearer {service.key}"}
    api = api_process(service)
    before = api.memory_info().rss
    draw = random.Random(1)
    followers = [Follower(draw.randrange(1, steps)) for _ in range(streams)]
    limits = httpx.Limits(max_connections=None)
    began = time.monotonic()
    async with httpx.AsyncClient(
        base_url=service.base_url, headers=headers, limits=limits
    ) as client:
        path = f"/fine_tuning/jobs/{job_id}/events"
        following = asyncio.gather(*(one.follow(client, path) for one in followers))
        peak = before
        while not following.done():
            peak = max(peak, api.memory_info().rss)
            await asyncio.sleep(1)
        await following
    late = sorted(delay for one in followers for delay in one.late)
    wrong = [one for one in followers if one.seen != Counter(range(1, steps + 1))]
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{streams} followers, {steps} steps in {time.monotonic() - began:.0f} s, each cut once")
    print(
        f"latency from record to follower, {len(late):,} points: median "
        f"{statistics.median(late) * 1000:.0f} ms, 95 % within "
        f"{late[int(len(late) * 0.95)] * 1000:.0f} ms, longest {late[-1] * 1000:.0f} ms"
    )
    before, peak = before / 1e6, peak / 1e6
    print(f"memory of the API: {before:.0f} MB before, {peak:.0f} MB at most with all followers")
    print(f"followers with a step missing or twice: {len(wrong)}")
    return len(wrong)


def main() -> None:
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    with tempfile.TemporaryDirectory() as folder:
        service = start_service(Path(folder) / "data")
        try:
            wrong = asyncio.run(bench(service, submit(service, steps), streams, steps))
        finally:
            stop_service(service)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
