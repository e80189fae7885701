"""One owner of a data folder at a time, and what a killed owner left is ended, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.data_folder import RUN_VARIABLE, AlreadyRunning, hold

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def sleepers() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Processes of two runs: `ours`, which was killed, and `other`."""
    started = {
        name: subprocess.Popen(SLEEP, env={**os.environ, RUN_VARIABLE: name}, process_group=0)
        for name in ("ours", "other")
    }
    yield started
    for process in started.values():
        process.kill()
        process.wait()


def test_a_second_owner_is_told_who_is_there(tmp_path: Path, said: list[str]) -> None:
    with (
        hold(tmp_path, "http://127.0.0.1:1234", said.append),
        pytest.raises(AlreadyRunning) as refused,
        hold(tmp_path, "http://127.0.0.1:5678", said.append),
    ):
        pass
    message = str(refused.value)
    assert f"process {os.getpid()}, http://127.0.0.1:1234" in message
    assert "--data-dir" in message


def test_the_folder_is_free_after_its_owner(tmp_path: Path, said: list[str]) -> None:
    for _ in range(2):
        with hold(tmp_path, "http://127.0.0.1:1", said.append):
            pass
    assert said == []


def test_the_strays_of_a_killed_run_end_and_others_live(
    tmp_path: Path, said: list[str], sleepers: dict[str, subprocess.Popen[bytes]]
) -> None:
    killed = {"pid": 1, "url": "http://127.0.0.1:1", "name": "ours"}
    (tmp_path / "lock").write_text(json.dumps(killed))
    with hold(tmp_path, "http://127.0.0.1:2", said.append):
        assert sleepers["ours"].wait(5) == -9
        assert sleepers["other"].poll() is None
    assert said == ["ending 1 processes that a killed run left behind"]


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', "[]"])
def test_a_torn_lock_file_is_no_obstacle(tmp_path: Path, said: list[str], text: str) -> None:
    (tmp_path / "lock").write_text(text)
    with hold(tmp_path, "http://127.0.0.1:1", said.append) as run:
        assert run.pid == os.getpid()


def test_the_folder_is_its_owners_alone(tmp_path: Path, said: list[str]) -> None:
    with hold(tmp_path / "data", "http://127.0.0.1:1", said.append):
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
