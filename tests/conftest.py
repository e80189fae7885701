"""What every test may stand on: a real PostgreSQL, a real Valkey, a whole live service."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from server.embedded import Embedded, embedded

# As root, PostgreSQL runs as another user, who has to get to its folder. The customary place for
# tests' folders is closed again by every other pytest that starts, so this session has its own.
TEMPORARY = tempfile.mkdtemp(prefix="luthier-test-")
os.environ["PYTEST_DEBUG_TEMPROOT"] = TEMPORARY

# Several of these run side by side: with a thread for each core in all of them, and in the trainers
# that they start, threads would mostly wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SERVER = str(Path(sys.executable).parent / "luthier-server")
START_SECONDS = 120
STOP_SECONDS = 150
_numbers = itertools.count()


def pytest_sessionfinish(exitstatus: int) -> None:
    """Leave the folders of a failure to be looked at, and nothing of a success."""
    if exitstatus == pytest.ExitCode.OK:
        shutil.rmtree(TEMPORARY, ignore_errors=True)


@pytest.fixture(scope="session")
def embedded_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with embedded(tmp_path_factory.mktemp("embedded")) as servers:
        yield servers


@pytest.fixture(scope="session")
def redis_url(embedded_servers: Embedded) -> str:
    return embedded_servers.redis_url


@pytest.fixture(scope="session")
def template_database(embedded_servers: Embedded) -> str:
    """The name of a database with this release's schema and no rows."""
    from migrations import upgrade

    name = "luthier_template"
    upgrade(new_database(embedded_servers, name))
    return name


@pytest.fixture(scope="module")
def postgres_url(embedded_servers: Embedded, template_database: str) -> str:
    """A migrated, empty database, fresh for every test module."""
    return new_database(embedded_servers, f"test_{next(_numbers)}", template_database)


def new_database(servers: Embedded, name: str, template: str = "template1") -> str:
    """Create a database; its URL."""
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    return servers.database_url.replace("/postgres?", f"/{name}?")


@dataclass
class Service:
    """A live `luthier-server up`."""

    url: str
    key: str
    data_dir: Path
    process: subprocess.Popen[bytes]

    @property
    def base_url(self) -> str:
        """What the OpenAI client takes."""
        return f"{self.url}/v1"

    def log(self) -> str:
        return _log(self.data_dir).read_text()


def _log(data_dir: Path) -> Path:
    return data_dir.with_name(f"{data_dir.name}.log")


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without settings of the developer's own."""
    ours = ("LUTHIER_", "OPENAI_", "DATABASE_URL", "REDIS_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "LUTHIER_HUB": "false", **more}


def start_service(data_dir: Path, *arguments: str, **environment: str) -> Service:
    """Start `luthier-server up` on a free port and wait until it says that it is ready.

    It runs in the folder above its data, away from a `luthier.toml` of the developer's.
    """
    (data_dir / "url").unlink(missing_ok=True)  # of a run that was killed
    command = [SERVER, "up", "--data-dir", str(data_dir), "--port", "0"]
    with _log(data_dir).open("ab") as log:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=data_dir.parent,
            env=clean_environment(**environment),
            stdout=log,
            stderr=log,
        )
    service = Service("", "", data_dir, process)
    deadline = time.monotonic() + START_SECONDS
    while not (data_dir / "url").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"the service did not start:\n{service.log()[-8000:]}")
        time.sleep(0.05)
    service.url = (data_dir / "url").read_text().strip()
    service.key = (data_dir / "api_key").read_text().strip()
    return service


def stop_service(service: Service) -> int:
    """Ask it to end; its exit status."""
    service.process.terminate()
    try:
        return service.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        service.process.kill()
        raise


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the whole session: tests must not stop it, nor rely on its being empty."""
    running = start_service(tmp_path_factory.mktemp("service") / "data")
    yield running
    assert stop_service(running) == 0
