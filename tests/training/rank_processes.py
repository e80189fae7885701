"""Ranks as forks of this process, which has imported everything: cheaper than trainers of their
own. What starts and watches real ones is tested in test_peers.py."""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.material import JobFolder, Record
from training.control import Control
from training.job import Job, read_job
from training.loop import train
from training.parallel import Ranks, joined
from training.records import Records

SECONDS = 240.0


def job_of_ranks(folder: JobFolder, spec: Any, count: int, **more: Any) -> Job:
    """The folder's job, for so many ranks."""
    path = folder.write(spec)
    contract = json.loads((path / "job.json").read_text()) | {"ranks": count} | more
    (path / "job.json").write_text(json.dumps(contract))
    return read_job(path)


def in_ranks(folder: Path, count: int, work: Callable[[Ranks], None], *, sharded: bool) -> None:
    """Do this in so many processes that have met. Fails with the first one that does."""
    meeting = folder / "ranks"
    meeting.unlink(missing_ok=True)
    children = [_fork(rank, count, meeting, work, sharded) for rank in range(count)]
    deadline = time.monotonic() + SECONDS
    try:
        while children:
            for child in list(children):
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    children.remove(child)
                    assert status == 0, "a rank failed, see its traceback"
            assert time.monotonic() < deadline, "the ranks wait for each other"
            time.sleep(0.02)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _fork(
    rank: int, count: int, meeting: Path, work: Callable[[Ranks], None], sharded: bool
) -> int:
    if child := os.fork():
        return child
    try:
        with joined(rank, count, meeting, "cpu", sharded) as ranks:
            work(ranks)
    except BaseException:  # noqa: BLE001 - a fork must not go on as the tests
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_ranks(job: Job, control: Callable[[], Control] = Control) -> list[Record]:
    """Train in the job's ranks; the records, which the first one writes."""
    path = job.folder / "records.jsonl"
    path.write_text("")

    def one(ranks: Ranks) -> None:
        fd = os.open(path if ranks.first else os.devnull, os.O_WRONLY)
        train(job, Records(fd), control() if ranks.first else Control(), ranks)

    in_ranks(job.folder, job.ranks, one, sharded=job.sharding == "full")
    return [json.loads(line) for line in path.read_text().splitlines()]
