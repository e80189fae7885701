"""The OpenAPI document is committed, whole and true."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from core.settings import Settings
from tests.api.conftest import Live
from tests.api.rows import make_model, make_running_job
from tests.rows import make_job, read_job, validated

COMMITTED = Path(__file__).parents[2] / "openapi.json"
EXAMPLES_A_ROUTE = 15

document = create_app(Settings()).openapi()


def test_the_committed_document_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api.openapi"], capture_output=True, text=True, check=True
    )
    assert done.stdout == COMMITTED.read_text(), "run `make openapi` and commit openapi.json"


def test_every_reference_leads_somewhere() -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            node = list(node.values())
        if isinstance(node, list):
            for part in node:
                yield from references(part)

    found = set(references(document))
    assert len(found) > 20
    for reference in found:
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_every_error_is_declared_as_a_problem() -> None:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answers = operation["responses"]
            expected = {"500"} | ({"400", "401", "403", "503"} if path.startswith("/v1") else set())
            assert expected <= set(answers), (method, path)
            for status, answer in answers.items():
                if int(status) >= 400:
                    assert answer["content"] == {"application/problem+json": problem}
    assert "HTTPValidationError" not in json.dumps(document)


schema = schemathesis.openapi.from_dict(document)


@pytest.fixture(scope="module")
def known(live: Live) -> dict[str, list[str]]:
    """Ids that exist, so that not every example ends in a 404."""
    model = make_model(live, step=20)
    checked = make_job(live.engine, live.project_id, queued=False)
    validated(live.engine, checked)
    asked = {"bytes": 3, "filename": "a.csv", "mime_type": "text/csv", "purpose": "fine-tune"}
    with live.http() as http:
        begun = http.post("/uploads", json=asked)
        wanted = {"url": "https://example.com/", "event_types": ["*"]}
        webhook = http.post("/webhook_endpoints", json=wanted)
        tried = http.post("/predictions", json={"model": model.id, "input": "x"})
    return {
        "training_file": [live.upload()],
        "file_id": [live.upload()],
        "job_id": [make_running_job(live), make_job(live.engine, live.project_id), model.job_id],
        "model": [model.id, "all-MiniLM-L6-v2"],
        "path": ["config.json"],
        "prediction_id": [tried.json()["id"]],
        "upload_id": [begun.json()["id"]],
        "validation_id": [str(read_job(live.engine, checked).validation_id)],
        "webhook_endpoint_id": [webhook.json()["id"]],
    }


@schema.parametrize()
@settings(
    max_examples=EXAMPLES_A_ROUTE,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_random_requests_get_what_the_document_says(
    case: schemathesis.Case[Any], live: Live, known: dict[str, list[str]]
) -> None:
    dice = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode())
    for name in case.path_parameters:
        ids = [*known[name], case.path_parameters[name]]
        case.path_parameters[name] = ids[dice % len(ids)]
    if isinstance(case.body, dict) and "training_file" in case.body and dice % 2:
        case.body |= {"model": "all-MiniLM-L6-v2", "training_file": known["training_file"][0]}
        case.body.pop("validation_file", None)
    headers = {"Authorization": f"Bearer {live.key}"}
    response = case.call(base_url=live.url, headers=headers)
    case.validate_response(
        response,
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_headers_conformance,
            response_schema_conformance,
        ],
    )
    assert response.headers["x-request-id"]


def test_the_document_is_served(live: Live) -> None:
    served = httpx.get(f"{live.url}/openapi.json")
    assert served.json() == json.loads(COMMITTED.read_text())
