"""`luthier-server keys` against a migrated database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from models import keys
from models.db import sync_engine, transaction
from server.cli import main

Run = Callable[..., Result]
SECRET = "a secret for this test alone"


@pytest.fixture
def run(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    monkeypatch.setenv("LUTHIER_SECRET", SECRET)

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["keys", *arguments])

    return command


def _authenticate(url: str, text: str) -> keys.ApiKey | None:
    with transaction(sync_engine(url)) as session:
        return keys.authenticate(session, SECRET.encode(), text)


def test_a_key_is_made_used_listed_and_revoked(run: Run, postgres_url: str) -> None:
    made = run("create", "--project", "vision", "--name", "laptop", "--scopes", "read")
    assert made.exit_code == 0, made.output
    text = made.output.strip()
    key = _authenticate(postgres_url, text)
    assert key is not None
    assert key.scopes == ["read"]

    listed = run("list").output
    [line] = [line for line in listed.splitlines() if line.startswith(key.id)]
    assert text not in listed
    assert line.split("\t")[2:5] == ["vision", "read", "live"]

    assert run("revoke", key.id).exit_code == 0
    assert _authenticate(postgres_url, text) is None
    assert "revoked" in run("list").output
    again = run("revoke", key.id)
    assert again.exit_code == 1
    assert "No live key" in again.output


def test_a_key_expires(run: Run, postgres_url: str) -> None:
    text = run("create", "--expires", "30d").output.strip()
    key = _authenticate(postgres_url, text)
    assert key is not None
    assert key.expires_at is not None
    assert (key.expires_at - key.created_at).days == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--expires", "tomorrow"], "12h, 30d, 52w"),
        (["--expires", "0d"], "12h, 30d, 52w"),
        (["--scopes", "read,admin"], "admin: choose among read, write"),
    ],
)
def test_nonsense_is_refused(run: Run, arguments: list[str], message: str) -> None:
    refused = run("create", *arguments)
    assert refused.exit_code == 2
    assert message in refused.output


def test_without_a_database_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    refused = CliRunner().invoke(main, ["keys", "--data-dir", str(tmp_path), "list"])
    assert refused.exit_code == 1
    assert f"No luthier-server runs on {tmp_path}" in refused.output
