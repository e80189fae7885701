"""The embedded servers: durable, private, restartable, from a path of any length."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg
import pytest
import redis
from kombu import Connection

from server.embedded import EmbeddedError, embedded


def _postmaster(data_dir: Path) -> psutil.Process:
    return psutil.Process(int((data_dir / "postgres/postmaster.pid").read_text().split()[0]))


def test_rows_survive_a_restart_and_a_kill(tmp_path: Path) -> None:
    with embedded(tmp_path) as servers, psycopg.connect(servers.database_url) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('first')")
    with embedded(tmp_path) as servers:
        with psycopg.connect(servers.database_url) as connection:
            connection.execute("INSERT INTO kept VALUES ('second')")
        _postmaster(tmp_path).kill()
    with embedded(tmp_path) as servers, psycopg.connect(servers.database_url) as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("first",), ("second",)]
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)


def test_no_process_is_left_and_postgres_ended_cleanly(tmp_path: Path) -> None:
    with embedded(tmp_path):
        processes = [
            child
            for child in psutil.Process().children()
            # A dead child of another test that is not collected yet has no command line.
            if child.status() != psutil.STATUS_ZOMBIE and str(tmp_path) in str(child.cmdline())
        ]
        assert {process.name() for process in processes} == {"postgres", "valkey-server"}
    assert not any(process.is_running() for process in processes)
    assert "database system is shut down" in (tmp_path / "postgres.log").read_text()


def test_nobody_else_may_open_either(tmp_path: Path) -> None:
    with embedded(tmp_path) as servers:
        [folder] = parse_qs(urlsplit(servers.database_url).query)["host"]
        mode = (Path(folder) / ".s.PGSQL.5432").stat().st_mode
        assert stat.S_IMODE(mode) == 0o700
        url = urlsplit(servers.redis_url)
        assert url.hostname == "127.0.0.1"
        with (
            redis.Redis(port=url.port or 0) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
        assert stat.S_IMODE((tmp_path / "valkey/valkey.conf").stat().st_mode) == 0o600


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 25) / ("deeper" * 10)
    for _ in range(2):
        with embedded(deep) as servers, psycopg.connect(servers.database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            [short] = parse_qs(urlsplit(servers.database_url).query)["host"]
        assert not Path(short).exists()


def test_kombu_takes_the_url(tmp_path: Path) -> None:
    with embedded(tmp_path) as servers, Connection(servers.redis_url) as connection:
        queue = connection.SimpleQueue("doorbell")
        queue.put({"job": 1})
        message = queue.get(timeout=5)
        message.ack()
        assert message.payload == {"job": 1}
        queue.close()


def test_a_killed_initdb_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    half = tmp_path / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with embedded(tmp_path) as servers, psycopg.connect(servers.database_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_cluster_of_another_version_is_refused(tmp_path: Path) -> None:
    with embedded(tmp_path):
        pass
    (tmp_path / "postgres/PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 17.*runs 18"), embedded(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as whom PostgreSQL does not run")
def test_as_root_postgres_runs_as_another_user_even_below_a_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with embedded(closed / "data"):
        assert _postmaster(closed / "data").uids().real != 0
    assert stat.S_IMODE(closed.stat().st_mode) == 0o701


def test_a_failed_start_shows_the_log(tmp_path: Path) -> None:
    with embedded(tmp_path):
        pass
    with (tmp_path / "postgres/postgresql.conf").open("a") as config:
        config.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match="no_such_setting"), embedded(tmp_path):
        pass
