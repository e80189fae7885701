"""The first key: made once, kept while it is live, replaced when this database does not know it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from core.settings import Settings
from models import keys
from models.db import sync_engine, transaction
from server.first_key import ensure_key


@pytest.fixture
def settings(tmp_path: Path, postgres_url: str) -> Settings:
    return Settings(data_dir=tmp_path, database_url=postgres_url)


def _key_of(settings: Settings) -> keys.ApiKey | None:
    text = (settings.data_dir / "api_key").read_text().strip()
    with transaction(sync_engine(settings.require_database_url())) as session:
        return keys.authenticate(session, settings.signing_secret(), text)


def test_it_is_made_once_and_only_its_owner_may_read_it(settings: Settings) -> None:
    said: list[str] = []
    for _ in range(2):
        ensure_key(settings, said.append)
    first = _key_of(settings)
    assert first is not None
    assert set(first.scopes) == set(keys.SCOPES)
    assert stat.S_IMODE((settings.data_dir / "api_key").stat().st_mode) == 0o600
    assert said == []
    with transaction(sync_engine(settings.require_database_url())) as session:
        assert [key.id for key, _ in keys.everyone(session)].count(first.id) == 1


def test_a_revoked_one_is_replaced_and_kept_aside(settings: Settings) -> None:
    said: list[str] = []
    ensure_key(settings, said.append)
    first = _key_of(settings)
    assert first is not None
    with transaction(sync_engine(settings.require_database_url())) as session:
        keys.revoke(session, first.id)
    old = (settings.data_dir / "api_key").read_text()

    ensure_key(settings, said.append)
    second = _key_of(settings)
    assert second is not None
    assert second.id != first.id
    assert (settings.data_dir / "api_key.old").read_text() == old
    assert "held no live key" in said[0]
