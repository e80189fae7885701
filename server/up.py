"""`luthier-server up`: the whole service on one machine, from one command.

Order of the start: data folder, PostgreSQL, Valkey, migrations, first key, then API, control and
worker together. The end goes the other way round. What `DATABASE_URL`, `REDIS_URL` or the storage
setting name is used instead of the embedded part, and is neither started nor ended.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from core.settings import Settings
from server import embedded
from server.children import Child
from server.data_folder import RUN_VARIABLE, AlreadyRunning, hold
from server.embedded import EmbeddedError, Part
from server.first_key import KEY_FILE, ensure_key
from server.health import is_ready
from server.keys import DATABASE_URL_FILE
from server.supervisor import CannotStart, Ended, Supervisor

READY_SECONDS = 120.0
"""For the slowest of starts: a cold disk, every import the first of its kind."""
API_GRACE_SECONDS = 15.0
URL_FILE = "url"


def up(settings: Settings) -> int:
    """Run until a signal; the exit status. Every process it started is gone when it returns."""
    os.umask(0o077)  # all that is made below the data folder is its owner's alone
    data_dir = settings.data_dir.absolute()
    port = settings.port or embedded.free_port(settings.host)
    settings = settings.model_copy(update={"data_dir": data_dir, "port": port})
    supervisor = Supervisor()
    try:
        with ExitStack() as owned:
            run = owned.enter_context(hold(data_dir, _url(settings), supervisor.say))
            owned.callback(embedded.remove_sockets, data_dir)
            owned.enter_context(supervisor)
            _check_address(settings)
            settings = _start_servers(supervisor, settings, {RUN_VARIABLE: run.name})
            _migrate(settings)
            ensure_key(settings, supervisor.say)
            supervisor.start(service_children(settings, run.name))
            api = (_own_address(settings), settings.port)
            supervisor.wait(lambda: is_ready(*api), f"{_url(settings)}/readyz", READY_SECONDS)
            _announce(settings, supervisor.say)
            for name in (URL_FILE, DATABASE_URL_FILE):
                owned.callback((data_dir / name).unlink, missing_ok=True)
            supervisor.run()
            supervisor.say("ending")
    except Ended:
        return 0
    except (AlreadyRunning, CannotStart, EmbeddedError) as error:
        print(f"luthier-server: {error}", file=sys.stderr)
        return 1
    return 0


def service_children(settings: Settings, run: str) -> list[Child]:
    """The service proper, told by its environment where everything is."""
    env = {
        **os.environ,
        RUN_VARIABLE: run,
        "LUTHIER_DATA_DIR": str(settings.data_dir),
        "LUTHIER_HOST": settings.host,
        "LUTHIER_PORT": str(settings.port),
        "LUTHIER_DATABASE_URL": settings.require_database_url(),
        "LUTHIER_REDIS_URL": settings.require_redis_url(),
        "PYTHONUNBUFFERED": "1",
    }
    # -P: a folder of the user's named `models` or `api` must not be imported in place of ours.
    command = [sys.executable, "-P", "-m", "server"]
    return [
        Child("api", [*command, "api"], env, grace=API_GRACE_SECONDS),
        Child("control", [*command, "control"], env, grace=settings.grace_seconds),
        Child("worker", [*command, "worker"], env, grace=settings.grace_seconds),
    ]


def _start_servers(supervisor: Supervisor, settings: Settings, marker: dict[str, str]) -> Settings:
    """Start PostgreSQL and Valkey unless the settings name others; the settings with their URLs."""
    found: dict[str, str] = {}
    if not settings.database_url:
        part = embedded.postgres(settings.data_dir, supervisor.say)
        found["database_url"] = _start_part(supervisor, part, marker)
    if not settings.redis_url:
        found["redis_url"] = _start_part(supervisor, embedded.valkey(settings.data_dir), marker)
    return settings.model_copy(update=found)


def _start_part(supervisor: Supervisor, part: Part, marker: dict[str, str]) -> str:
    child = replace(part.child, env={**part.child.env, **marker})
    supervisor.start([child])
    supervisor.wait(part.is_ready, child.name, READY_SECONDS)
    return part.url


def _migrate(settings: Settings) -> None:
    from migrations import upgrade
    from models.db import Disconnected

    try:
        upgrade(settings.require_database_url())
    except Disconnected as error:
        raise CannotStart(
            f"the database cannot be reached: {error.__cause__ or error} Check DATABASE_URL."
        ) from error


def _check_address(settings: Settings) -> None:
    """Refuse an address that the API could not bind, before anything is started."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: f"port {port} on {host} is taken. Choose another with --port.",
            errno.EACCES: f"port {port} needs privileges. Choose one above 1023 with --port.",
            errno.EADDRNOTAVAIL: f"{host} is not an address of this machine. Choose a --host.",
        }
        raise CannotStart(
            reasons.get(error.errno or 0, f"{host}:{port} cannot be listened on: {error}")
        ) from error


def _own_address(settings: Settings) -> str:
    """The address at which this machine reaches the API: a wildcard is none."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104


def _url(settings: Settings) -> str:
    host = _own_address(settings)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _announce(settings: Settings, say: Callable[[str], None]) -> None:
    url, data_dir = _url(settings), settings.data_dir
    (data_dir / URL_FILE).write_text(url + "\n")
    (data_dir / DATABASE_URL_FILE).write_text(settings.require_database_url() + "\n")
    say(f"Luthier is ready at {url}")
    say(f"The API key is in {data_dir / KEY_FILE}")
    if not _is_loopback(settings.host):
        say(
            f"WARNING: listening on {settings.host}, in plain HTTP: whoever can read the traffic "
            "reads the keys. Put a proxy that speaks TLS in front."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
