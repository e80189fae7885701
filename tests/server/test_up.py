"""`luthier-server up` for real: how it starts, what it leaves behind after each way of ending."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from openai import OpenAI

from server.embedded import Embedded
from tests.conftest import (
    SERVER,
    Service,
    clean_environment,
    new_database,
    start_service,
    stop_service,
)

GONE_SECONDS = 15
"""From the death of `up` to that of the last process: a trainer notices by its closed pipe."""


def family(service: Service) -> list[psutil.Process]:
    """All that `up` started, itself included."""
    up = psutil.Process(service.process.pid)
    return [up, *up.children(recursive=True)]


def left(processes: list[psutil.Process]) -> list[str]:
    """Those still there, by number and start time; a zombie of ours to reap counts as gone."""
    return [
        f"{process.pid} {process.cmdline()}"
        for process in processes
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def up(data_dir: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail, to its end."""
    return subprocess.run(
        [SERVER, "up", "--data-dir", str(data_dir), *arguments],
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def killed_in_the_end() -> Iterator[list[Service]]:
    started: list[Service] = []
    yield started
    for service in started:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()


def test_it_says_where_it_is_and_where_the_key_lies(service: Service) -> None:
    log = service.log()
    assert f"up       | Luthier is ready at {service.url}" in log
    assert f"up       | The API key is in {service.data_dir / 'api_key'}" in log
    assert service.key not in log
    for name in ("api", "control", "worker", "postgres", "valkey"):
        eventually(lambda name=name: f"\n{name:<8} | " in service.log())  # type: ignore[misc]
    assert "WARNING: listening" not in log


def test_what_it_keeps_is_its_owners_alone(service: Service) -> None:
    for name in ("api_key", "secret", "database_url"):
        assert stat.S_IMODE((service.data_dir / name).stat().st_mode) == 0o600, name
    for path in service.data_dir.iterdir():
        mode = path.stat().st_mode
        assert not mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH), path


def test_the_key_opens_the_api_and_nothing_else_does(service: Service) -> None:
    with OpenAI(base_url=service.base_url, api_key=service.key) as client:
        assert client.models.list() is not None
    assert not answers(f"{service.base_url}/models")


def test_no_process_but_the_trainer_loads_torch(service: Service) -> None:
    loaded = {
        " ".join(process.cmdline()[1:])
        for process in family(service)
        if any("libtorch" in entry.path for entry in process.memory_maps())
    }
    assert loaded <= {"-P -m training"}


def test_a_second_start_on_the_folder_says_who_is_there(service: Service) -> None:
    refused = up(service.data_dir, "--port", "0")
    assert refused.returncode == 1
    assert f"process {service.process.pid}, {service.url}" in refused.stderr
    assert answers(f"{service.url}/readyz")


def test_a_taken_port_is_named_before_anything_starts(service: Service, tmp_path: Path) -> None:
    port = service.url.rpartition(":")[2]
    refused = up(tmp_path, "--port", port)
    assert refused.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken. Choose another with --port." in refused.stderr
    assert not (tmp_path / "postgres").exists()


@pytest.mark.parametrize(
    ("host", "reason"),
    [("192.0.2.1", "is not an address of this machine"), ("no.such.host.invalid", "cannot be")],
)
def test_an_address_that_cannot_be_bound(host: str, reason: str, tmp_path: Path) -> None:
    refused = up(tmp_path, "--host", host, "--port", "8123")
    assert refused.returncode == 1
    assert reason in refused.stderr


def test_a_database_that_does_not_answer_ends_the_start(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql://nobody@127.0.0.1:{unused.getsockname()[1]}/none"
        refused = up(tmp_path, "--port", "0", DATABASE_URL=url)
    assert refused.returncode == 1
    assert "the database cannot be reached" in refused.stderr
    assert "DATABASE_URL" in refused.stderr


def test_keys_are_made_for_the_running_service(service: Service) -> None:
    command = [SERVER, "keys", "--data-dir", str(service.data_dir)]
    made = subprocess.run(
        [*command, "create", "--project", "other"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    with OpenAI(base_url=service.base_url, api_key=made.stdout.strip()) as client:
        assert list(client.files.list()) == []


def test_kill_9_leaves_no_process_and_the_next_start_goes_on(
    tmp_path: Path, killed_in_the_end: list[Service]
) -> None:
    first = start_service(tmp_path / "data")
    killed_in_the_end.append(first)
    with OpenAI(base_url=first.base_url, api_key=first.key) as client:
        file = client.files.create(file=("a.csv", b"text,label\na,b\n"), purpose="fine-tune")
    processes = family(first)
    first.process.kill()
    first.process.wait()
    eventually(lambda: not left(processes), GONE_SECONDS)

    second = start_service(tmp_path / "data")
    killed_in_the_end.append(second)
    assert second.key == first.key
    with OpenAI(base_url=second.base_url, api_key=second.key) as client:
        assert client.files.content(file.id).read() == b"text,label\na,b\n"

    processes = family(second)
    [api] = [process for process in processes if process.cmdline()[-1:] == ["api"]]
    api.kill()
    eventually(lambda: "api ended (signal SIGKILL); starting it again in 1 s" in second.log())
    eventually(lambda: answers(f"{second.url}/readyz"))

    processes = family(second)
    second.process.send_signal(signal.SIGINT)
    assert second.process.wait(60) == 0
    assert not left(processes)
    assert not (tmp_path / "data/url").exists()
    assert "database system is shut down" in second.log()
    assert second.log().rstrip().endswith("database system is shut down")


def test_servers_of_ones_own_replace_the_embedded_ones(
    tmp_path: Path, embedded_servers: Embedded, killed_in_the_end: list[Service]
) -> None:
    for room in ("api", "core", "models", "server", "worker"):  # of the user's own, in their folder
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise RuntimeError('not yours to import')\n")
    running = start_service(
        tmp_path / "data",
        "--host",
        "0.0.0.0",  # noqa: S104
        DATABASE_URL=new_database(embedded_servers, "of_ones_own"),
        REDIS_URL=embedded_servers.redis_url.removesuffix("/0") + "/8",
        LUTHIER_STORAGE_URL=(tmp_path / "elsewhere").as_uri(),
    )
    killed_in_the_end.append(running)
    assert "WARNING: listening on 0.0.0.0, in plain HTTP" in running.log()
    assert running.url.startswith("http://127.0.0.1:")
    processes = family(running)
    assert not {"postgres", "valkey-server"} & {process.name() for process in processes}
    with OpenAI(base_url=running.base_url, api_key=running.key) as client:
        client.files.create(file=("a.csv", b"text,label\na,b\n"), purpose="fine-tune")
    assert any(path.is_file() for path in (tmp_path / "elsewhere").rglob("*"))
    assert not (tmp_path / "data/storage").exists()
    assert stop_service(running) == 0
    assert not left(processes)


@pytest.mark.parametrize("seconds", [0.7, 1.5, 3.0])
def test_a_signal_in_the_middle_of_the_start_ends_it(tmp_path: Path, seconds: float) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [SERVER, "up", "--data-dir", str(tmp_path), "--port", "0"],
            env=clean_environment(),
            stdout=log,
            stderr=log,
        )
    eventually(lambda: (tmp_path / "lock").exists() and bool((tmp_path / "lock").read_text()))
    time.sleep(seconds)
    processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, (tmp_path / "log").read_text()
    assert not left(processes)


def test_the_lock_file_says_who_runs(service: Service) -> None:
    run = json.loads((service.data_dir / "lock").read_text())
    assert (run["pid"], run["url"]) == (service.process.pid, service.url)
