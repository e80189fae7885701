"""The doorbell: rings arrive, and a broker that is away or frozen delays nobody for long."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.doorbell import Doorbell, train_queue
from core.settings import Settings
from server.children import spawn, stop
from server.embedded import free_port, valkey


def test_rings_wait_for_workers_of_the_right_kind(redis_url: str) -> None:
    bell = Doorbell(Settings(redis_url=redis_url))
    assert bell.train([])
    assert bell.train(["cuda"])
    assert bell.train(["cuda"])
    assert bell.pending(train_queue(["cuda"])) == 2
    assert bell.pending("train.nobody") == 0
    bell.close()


def test_a_broker_that_is_away_is_no_error_for_the_caller() -> None:
    bell = Doorbell(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    assert bell.validate("ftjob-1") is False
    bell.close()


@pytest.fixture
def frozen_broker(tmp_path: Path) -> Iterator[str]:
    part = valkey(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        process = spawn(part.child, log.fileno())
    while not part.is_ready():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGSTOP)
    yield part.url
    os.kill(process.pid, signal.SIGCONT)
    stop(part.child, process)


def test_a_frozen_broker_blocks_for_its_time_out_and_no_longer(frozen_broker: str) -> None:
    bell = Doorbell(Settings(redis_url=frozen_broker, broker_timeout_seconds=0.5))
    began = time.monotonic()
    assert bell.validate("ftjob-1") is False
    # Not a speed claim: without the time-outs a Celery client blocks for over 25 s here.
    assert time.monotonic() - began < 15
