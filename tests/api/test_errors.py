"""Errors that nobody caused, and what surrounds every answer."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import Live, running, settings_for
from tests.rows import make_job


def test_every_answer_has_an_id_of_its_own(live: Live) -> None:
    with live.http() as http:
        answers = [
            http.get("/files"),
            http.get("/files", headers={"x-request-id": "req-forged"}),
            http.get("/nothing"),
            http.get("/files/none"),
            http.put("/files"),
        ]
    answers.append(httpx.get(f"{live.base_url}/files"))
    answers.append(httpx.get(f"{live.url}/healthz"))
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"req-[0-9a-z]{26}", one) for one in ids)
    assert [answer.status_code for answer in answers] == [200, 200, 404, 404, 405, 401, 200]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/nothing", 404, "unknown_url"),
        ("GET", "/v1/files/", 404, "unknown_url"),
        ("PATCH", "/v1/files", 405, "method_not_allowed"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
        ("GET", "/docs", 404, "unknown_url"),
    ],
)
def test_the_frameworks_own_errors(
    live: Live, method: str, path: str, status: int, code: str
) -> None:
    answer = httpx.request(method, live.url + path, headers={"Authorization": f"Bearer {live.key}"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error"]["code"] == code
    assert ("allow" in answer.headers) == (status == 405)


def test_a_failure_shows_no_internals_and_is_logged(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    # A row that no version of the service writes: the request does not fit its model.
    broken = make_job(live.engine, live.project_id, request={"modle": "secret words"})
    with caplog.at_level(logging.ERROR), live.http() as http:
        answer = http.get(f"/fine_tuning/jobs/{broken}")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret words" not in answer.text
    assert "Traceback" not in answer.text
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("internal", "server_error")
    assert "x-request-id" in error["message"]
    assert "ValidationError" in caplog.text


@pytest.fixture
def without_database(tmp_path: Path, redis_url: str) -> Iterator[str]:
    nobody = "postgresql://nobody@127.0.0.1:1/nothing"
    with running(settings_for(tmp_path, nobody, redis_url)) as url:
        yield url


def test_a_database_that_is_away(without_database: str) -> None:
    """Unavailable, so that clients come back, and alive all the same."""
    answer = httpx.get(f"{without_database}/v1/files", headers={"Authorization": "Bearer lk-x"})
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("unavailable", "server_error")
    assert "127.0.0.1" not in answer.text
    assert httpx.get(f"{without_database}/healthz").status_code == 200
    ready = httpx.get(f"{without_database}/readyz")
    assert ready.status_code == 503
    assert "database" in ready.json()["error"]["message"]
    assert "storage" not in ready.json()["error"]["message"]


def test_a_storage_that_is_away(live: Live, tmp_path: Path) -> None:
    settings = settings_for(
        live.settings.data_dir,
        str(live.settings.database_url),
        str(live.settings.redis_url),
        storage_url="s3://bucket/prefix",
        s3_endpoint="http://127.0.0.1:1",
        s3_access_key_id="id",
        s3_secret_access_key="secret words",
    )
    file_id = live.upload()
    with running(settings) as url:
        headers = {"Authorization": f"Bearer {live.key}"}
        answer = httpx.get(f"{url}/v1/files/{file_id}/content", headers=headers, timeout=60)
        ready = httpx.get(f"{url}/readyz", timeout=60)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "storage_unavailable"
    assert "127.0.0.1" not in answer.text
    assert ready.status_code == 503
    assert "storage" in ready.json()["error"]["message"]


def test_the_api_never_loads_torch() -> None:
    program = (
        "import sys, api.app; from core.settings import Settings; "
        "api.app.create_app(Settings()).openapi(); "
        "barred = {'torch', 'transformers', 'worker', 'training'} & set(sys.modules); "
        "sys.exit(', '.join(barred) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
