"""Ids, settings, secrets and log masking."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from core import ids
from core.logging import _Json, masked
from core.settings import Settings


def test_ids_are_unique_and_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(1_000_000_000_000_000_000, 1_000_000_100_000_000_000, 1_000_000))
    monkeypatch.setattr("time.time_ns", lambda: next(moments))
    made = [ids.job() for _ in range(1000)]
    assert made == sorted(made)
    assert len(set(made)) == 1000
    assert all(len(job) == len("ftjob-") + 26 for job in made)


def test_customary_names_of_urls_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://a/b")
    monkeypatch.setenv("REDIS_URL", "redis://a")
    assert Settings().database_url == "postgresql://a/b"
    monkeypatch.setenv("LUTHIER_REDIS_URL", "redis://ours")
    assert Settings().redis_url == "redis://ours"


def test_a_toml_file_sets_what_the_environment_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "luthier.toml").write_text(
        'port = 9000\nhost = "::1"\n[base_models]\nmine = "/models/mine"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUTHIER_PORT", "9001")
    settings = Settings()
    assert (settings.port, settings.host) == (9001, "::1")
    assert settings.base_models == {"mine": Path("/models/mine")}


def test_the_signing_secret_is_made_once_and_private(tmp_path: Path) -> None:
    first = Settings(data_dir=tmp_path).signing_secret()
    assert Settings(data_dir=tmp_path).signing_secret() == first
    assert len(first) >= 32
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(SystemExit, match="openssl rand"):
        Settings(secret="short").signing_secret()  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["require_database_url", "require_redis_url"])
def test_missing_urls_say_what_to_do(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "LUTHIER_DATABASE_URL", "LUTHIER_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match="luthier-server up"):
        getattr(Settings(), missing)()


def test_keys_are_masked_in_logs() -> None:
    key = "lk-0a1b2cSECRETSECRETSECRETSECRETSECRET"
    record = logging.LogRecord("x", logging.INFO, "", 0, "Bearer %s sent", (key,), None)
    record.job_id = "ftjob-1"
    entry = json.loads(_Json().format(record))
    assert "SECRET" not in entry["message"]
    assert entry["job_id"] == "ftjob-1"
    assert masked("nothing here") == "nothing here"
