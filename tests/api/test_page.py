"""The page's place when it is not there."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from api import page
from tests.api.conftest import Live


def test_a_page_that_is_not_built_says_how_to_build_it(
    live: Live, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "STATIC", tmp_path)
    answer = httpx.get(live.url)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "page_not_built"
    assert "make page" in answer.json()["error"]["message"]
