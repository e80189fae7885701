"""Who may see what. The cases are made from the OpenAPI document, so a new route is tried too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from api.app import create_app
from core.settings import Settings
from models import keys, transitions
from models.db import transaction
from models.jobs import Job
from models.keys import ApiKey
from models.state import Status
from tests.api.conftest import Live
from tests.api.rows import make_model
from tests.rows import make_job, read_job, validated

PUBLIC = {"/", "/healthz", "/readyz"}
OPERATORS = {"/metrics"}
"""Opened by a token of their own."""
IDS = {
    "file_id",
    "job_id",
    "model",
    "prediction_id",
    "upload_id",
    "validation_id",
    "webhook_endpoint_id",
}
"""Path parameters that name a row of somebody's. Every other one is listed here as well."""
OTHERS = {"path"}


SAMPLES: dict[str, Any] = {"string": "x", "integer": 1, "array": ["x"], "object": {}}

document = create_app(Settings()).openapi()


def operations() -> Iterator[tuple[str, str]]:
    for path, methods in document["paths"].items():
        for method in methods:
            yield method, path


def body_for(method: str, path: str) -> dict[str, Any]:
    """A body that the route can read, so that only the id is wrong."""
    contents = document["paths"][path][method].get("requestBody", {}).get("content", {})
    for kind, content in contents.items():
        schema = content["schema"]
        sample = {
            name: value["enum"][0] if "enum" in value else SAMPLES[value["type"]]
            for name in schema.get("required", [])
            for value in [schema["properties"][name]]
        }
        if kind == "application/json":
            return {"json": sample}
        return {"files": {name: ("x", value) for name, value in sample.items()}}
    return {}


QUERIES = {"/v1/fine_tuning/compare": lambda rows: {"job": [rows["job_id"]] * 2}}
"""What a GET needs beside its path."""


def parameters(path: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", path))


KEYED = [(method, path) for method, path in operations() if path not in PUBLIC | OPERATORS]
WITH_ID = [(method, path) for method, path in KEYED if parameters(path) & IDS]


def call(live: Live, method: str, path: str, key: str, **options: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.request(method, live.url + path, headers=headers, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rows(live: Live) -> dict[str, str]:
    """One row of the default project for each kind of id."""
    asked = {"bytes": 3, "filename": "a.csv", "mime_type": "text/csv", "purpose": "fine-tune"}
    begun = call(live, "post", "/v1/uploads", live.key, json=asked)
    job_id = make_job(live.engine, live.project_id, queued=False)
    validated(live.engine, job_id)
    with transaction(live.engine) as session:
        transitions.move(session, session.get_one(Job, job_id), Status.QUEUED)
    wanted = {"url": "https://example.com/", "event_types": ["*"]}
    webhook = call(live, "post", "/v1/webhook_endpoints", live.key, json=wanted)
    tried = {"model": make_model(live, "tried").id, "input": "x"}
    prediction = call(live, "post", "/v1/predictions", live.key, json=tried)
    return {
        "file_id": live.upload(),
        "job_id": job_id,
        "model": quote(make_model(live).id, safe=""),
        "path": "config.json",
        "prediction_id": prediction.json()["id"],
        "upload_id": begun.json()["id"],
        "validation_id": str(read_job(live.engine, job_id).validation_id),
        "webhook_endpoint_id": webhook.json()["id"],
    }


def test_every_parameter_is_known_to_this_test() -> None:
    named = {name for _, path in KEYED for name in parameters(path)}
    assert named == IDS | OTHERS
    assert len(WITH_ID) >= 14


@pytest.mark.parametrize(
    ("method", "path"), [*KEYED, *(("get", path) for path in sorted(OPERATORS))]
)
def test_without_a_key(live: Live, rows: dict[str, str], method: str, path: str) -> None:
    for key, code in (("", "missing_api_key"), ("lk-0000000wrong", "invalid_api_key")):
        answer = call(live, method, path.format(**rows), key, content=b"{not json")
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", sorted(PUBLIC))
def test_public_routes(live: Live, path: str) -> None:
    assert httpx.get(live.url + path).status_code == 200


@pytest.mark.parametrize(("method", "path"), WITH_ID)
def test_with_another_projects_key(
    live: Live, rows: dict[str, str], method: str, path: str
) -> None:
    body = body_for(method, path)
    answer = call(live, method, path.format(**rows), live.stranger_key, **body)
    assert answer.status_code == 404, answer.text
    unknown = path.format(**{name: "ft:none" if name == "model" else "none" for name in rows})
    as_if_absent = call(live, method, unknown, live.stranger_key, **body)
    assert as_if_absent.json()["error"]["code"] == answer.json()["error"]["code"]


def test_the_owner_still_has_it_all(live: Live, rows: dict[str, str]) -> None:
    """Runs after the stranger's tries at deleting and cancelling: nothing was touched."""
    for method, path in WITH_ID:
        if method == "get":
            answer = call(live, method, path.format(**rows), live.key)
            assert answer.status_code == 200, path
    job = call(live, "get", f"/v1/fine_tuning/jobs/{rows['job_id']}", live.key).json()
    assert (job["status"], job["desired"]) == ("queued", "run")


def test_lists_hold_the_own_project_alone(live: Live, rows: dict[str, str]) -> None:
    for path in ("/v1/files", "/v1/fine_tuning/jobs", "/v1/fine_tuning/validations"):
        assert call(live, "get", path, live.key).json()["data"]
        assert call(live, "get", path, live.stranger_key).json()["data"] == []
    models = call(live, "get", "/v1/models", live.stranger_key).json()["data"]
    assert all(model["owned_by"] == "base" for model in models)


def test_ids_in_a_body_are_scoped_too(live: Live, rows: dict[str, str]) -> None:
    mine = live.upload(key=live.stranger_key)
    for param in ("training_file", "validation_file"):
        body = {"model": "all-MiniLM-L6-v2", "training_file": mine} | {param: rows["file_id"]}
        for thing in ("jobs", "validations"):
            path = f"/v1/fine_tuning/{thing}"
            answer = call(live, "post", path, live.stranger_key, json=body)
            assert answer.status_code == 404
            assert answer.json()["error"]["param"] == param
    body = {"model": make_model(live, suffix="theirs").id, "training_file": mine}
    for thing in ("jobs", "validations"):
        answer = call(live, "post", f"/v1/fine_tuning/{thing}", live.stranger_key, json=body)
        assert answer.status_code == 404
        assert answer.json()["error"]["param"] == "model"


def test_cursors_are_scoped_too(live: Live, rows: dict[str, str]) -> None:
    events = f"/v1/fine_tuning/jobs/{rows['job_id']}/events"
    foreign = call(live, "get", events, live.key).json()["data"][0]["id"]
    mine = make_job(live.engine, live.make_key("strangers")[0])
    answer = call(
        live, "get", f"/v1/fine_tuning/jobs/{mine}/events?after={foreign}", live.stranger_key
    )
    assert answer.status_code == 404


class TestScopes:
    def test_read_alone(self, live: Live, rows: dict[str, str]) -> None:
        _, reader = live.make_key("default", scopes=("read",))
        for method, path in KEYED:
            options = {"params": QUERIES[path](rows)} if path in QUERIES else {}
            answer = call(live, method, path.format(**rows), reader, **options)
            if method == "get":
                assert answer.status_code == 200, path
            else:
                assert answer.status_code == 403, path
                assert answer.json()["error"]["code"] == "insufficient_scope"

    def test_write_alone(self, live: Live) -> None:
        _, writer = live.make_key("default", scopes=("write",))
        assert call(live, "get", "/v1/files", writer).status_code == 403


def test_a_revoked_and_an_expired_key(live: Live) -> None:
    _, text = live.make_key("default")
    assert call(live, "get", "/v1/files", text).status_code == 200
    with transaction(live.engine) as session:
        row = keys.authenticate(session, live.settings.signing_secret(), text)
        assert isinstance(row, ApiKey)
        assert keys.revoke(session, row.id)
    assert call(live, "get", "/v1/files", text).status_code == 401
    _, expired = live.make_key("default", lifetime=timedelta(seconds=-1))
    assert call(live, "get", "/v1/files", expired).status_code == 401


@pytest.mark.parametrize("header", ["", "Bearer", "Basic eDp5", "lk-naked", "Bearer \xff"])
def test_a_header_that_is_no_key(live: Live, header: str) -> None:
    answer = httpx.get(
        live.base_url + "/files", headers=[(b"Authorization", header.encode("latin-1"))]
    )
    assert answer.status_code == 401
