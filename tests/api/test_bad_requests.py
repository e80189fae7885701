"""What is wrong with a call is said with its place, and with what to do."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from tests.api.conftest import Live

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def training_file(live: Live) -> str:
    return live.upload()


def submit(live: Live, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with live.http() as http:
        return http.post("/fine_tuning/jobs", content=content)


def error_of(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["detail"] == body["error"]["message"]
    assert body["instance"].endswith(answer.headers["x-request-id"])
    assert body["type"] == f"urn:luthier:error:{body['error']['code']}"
    error: dict[str, Any] = body["error"]
    return error


FIELDS = [
    ({"n_epoch": 3}, "unknown_parameter", "n_epoch", "Did you mean `n_epochs`?"),
    ({"n_epochs": 0}, "invalid_value", "n_epochs", '"auto" or a whole number from 1 to 1000; 0'),
    ({"n_epochs": 1001}, "invalid_value", "n_epochs", "1001 was given"),
    ({"n_epochs": "many"}, "invalid_value", "n_epochs", '"many" was given'),
    ({"n_epochs": "3"}, "invalid_value", "n_epochs", '"3" was given'),
    ({"n_epochs": True}, "invalid_value", "n_epochs", "true was given"),
    ({"learning_rate": 0}, "invalid_value", "learning_rate", "a number above 0 and not above 10"),
    ({"learning_rate": 1e999}, "invalid_value", "learning_rate", "not above 10"),
    ({"lr_scheduler": "magic"}, "invalid_value", "lr_scheduler", '"linear", "cosine", '),
    ({"packing": "yes"}, "invalid_value", "packing", 'must be "auto" or true or false; "yes"'),
    ({"torch_compile": 1}, "invalid_value", "torch_compile", "must be true or false; 1 was given"),
    ({"class_weights": "equal"}, "invalid_value", "class_weights", '"balanced" or an object of'),
    ({"class_weights": {"a": 0}}, "invalid_value", "class_weights", "each value is a number above"),
]


OF_THE_TASK = [
    ({"beta": 0.1}, "beta", "'preference'"),
    ({"max_length": 32, "momentum": 0.5}, "momentum", "'sgd'"),
    ({"learning_rate": 0.1, "learning_rate_multiplier": 2}, "learning_rate_multiplier", "one of"),
    ({"micro_batch_tokens": 64, "packing": False}, "micro_batch_tokens", "`packing` is false"),
    ({"mixup": 0.2}, "mixup", "'image-classification'"),
    ({"early_stopping_patience": 2}, "early_stopping_patience", "`cleaning.split`"),
]


@pytest.mark.parametrize(("given", "name", "words"), OF_THE_TASK)
def test_a_setting_that_does_not_go_with_the_task_makes_no_job(
    live: Live, training_file: str, given: dict[str, Any], name: str, words: str
) -> None:
    body = {"model": MODEL, "training_file": training_file, "task": "text-classification"}
    older = error_of(submit(live, {**body, "hyperparameters": given}))
    assert older["param"] == f"hyperparameters.{name}"
    assert words in older["message"]
    method = {"type": "supervised", "supervised": {"hyperparameters": given}}
    error = error_of(submit(live, {**body, "method": method}))
    assert error["param"] == f"method.supervised.hyperparameters.{name}"


@pytest.mark.parametrize("place", ["hyperparameters", "method.supervised.hyperparameters"])
@pytest.mark.parametrize(("given", "code", "name", "words"), FIELDS)
def test_hyperparameters(
    live: Live,
    training_file: str,
    place: str,
    given: dict[str, Any],
    code: str,
    name: str,
    words: str,
) -> None:
    body: dict[str, Any] = {"model": MODEL, "training_file": training_file}
    if place == "hyperparameters":
        body["hyperparameters"] = given
    else:
        body["method"] = {"type": "supervised", "supervised": {"hyperparameters": given}}
    content = json.dumps(body).replace("Infinity", "1e999").encode()
    error = error_of(submit(live, content))
    assert (error["code"], error["param"]) == (code, f"{place}.{name}")
    assert words in error["message"]


@pytest.mark.parametrize(
    ("changes", "code", "param", "words"),
    [
        ({"model": None}, "invalid_value", "model", "text of 1 to 256 characters; null"),
        ({"modle": "x"}, "unknown_parameter", "modle", "Did you mean `model`?"),
        ({"model": "gpt-4o"}, "model_not_found", "model", MODEL),
        ({"model": "all-MiniLM-L6-v3"}, "model_not_found", "model", f"Did you mean '{MODEL}'"),
        ({"model": "../../etc"}, "model_not_found", "model", "not known"),
        ({"task": "text-clasification"}, "unknown_task", "task", "'text-classification'"),
        ({"task": "image-classification"}, "unsupported_model", "model", "type 'bert'"),
        (
            {"model": "scratch/vit-tiny", "task": "image-classification"},
            "unsupported_tuning",
            "tuning",
            "'scratch'",
        ),
        (
            {"method": {"type": "dpo"}, "task": "text-classification"},
            "unsupported_method",
            "task",
            "'preference'",
        ),
        (
            {"method": {"type": "dpo", "supervised": {}}},
            "unsupported_method",
            "method.supervised",
            "Leave it out",
        ),
        (
            {"task": "preference", "tuning": "scratch"},
            "unsupported_tuning",
            "tuning",
            "trained one",
        ),
        ({"method": {"type": "reinforcement"}}, "unsupported_method", "method.type", "'dpo'"),
        ({"method": {"dpo": {}}}, "unsupported_method", "method.dpo", "Leave it out"),
        ({"method": {"type": "magic"}}, "invalid_value", "method.type", '"supervised", "dpo"'),
        (
            {"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]},
            "unsupported_integration",
            "integrations.0",
            "LUTHIER_WANDB_API_KEY",
        ),
        (
            {"integrations": [{"type": "mlflow", "mlflow": {"experiment": "e"}}]},
            "unsupported_integration",
            "integrations.0.mlflow.tracking_uri",
            "LUTHIER_MLFLOW_TRACKING_URI",
        ),
        (
            {
                "integrations": [
                    {
                        "type": "mlflow",
                        "mlflow": {"experiment": "e", "tracking_uri": "http://169.254.169.254/"},
                    }
                ]
            },
            "unsupported_integration",
            "integrations.0.mlflow.tracking_uri",
            "LUTHIER_MLFLOW_ALLOWED_URIS",
        ),
        ({"suffix": ""}, "invalid_value", "suffix", "1 to 64 characters"),
        ({"suffix": "x" * 65}, "invalid_value", "suffix", "1 to 64 characters"),
        ({"seed": -1}, "invalid_value", "seed", "0 to 2147483647"),
        ({"metadata": {"k": 1}}, "invalid_value", "metadata.k", "at most 512"),
        ({"metadata": {"k" * 65: "v"}}, "invalid_value", "metadata." + "k" * 65, "64"),
        ({"metadata": {str(n): "" for n in range(17)}}, "invalid_value", "metadata", "16 entries"),
        ({"resources": {"gpus": 65}}, "invalid_value", "resources.gpus", "64"),
        ({"resources": {"sharding": "some"}}, "invalid_value", "resources.sharding", "full"),
        ({"resources": {"gpus": 1, "device": "cpu"}}, "invalid_request", "resources.gpus", "cpu"),
        ({"suffix": "a\0b"}, "invalid_json", None, "NUL"),
        (
            {"hyperparameters": {}, "method": {"supervised": {}}},
            "invalid_value",
            None,
            "hyperparameters once",
        ),
    ],
)
def test_fields(
    live: Live,
    training_file: str,
    changes: dict[str, Any],
    code: str,
    param: str | None,
    words: str,
) -> None:
    body = {"model": MODEL, "training_file": training_file} | changes
    error = error_of(submit(live, body))
    assert (error["code"], error["param"]) == (code, param)
    assert words in error["message"]


def test_several_problems_are_all_listed(live: Live) -> None:
    answer = submit(live, {"hyperparameters": {"n_epochs": 0, "bach_size": 2}})
    error = error_of(answer)
    assert "3 more in `details`" in error["message"]
    assert {(d["param"], d["code"]) for d in answer.json()["details"]} == {
        ("model", "missing_required_parameter"),
        ("training_file", "missing_required_parameter"),
        ("hyperparameters.n_epochs", "invalid_value"),
        ("hyperparameters.bach_size", "unknown_parameter"),
    }


def test_thousands_of_problems_cost_little(live: Live) -> None:
    began = time.monotonic()
    answer = submit(live, {f"k{n}": 0 for n in range(4000)})
    assert time.monotonic() - began < 1.0
    assert error_of(answer)["code"] == "missing_required_parameter"
    assert len(answer.json()["details"]) == 20


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "line 1 column 0"),
        (b'{"model": \n oops}', "line 2"),
        (b'{"seed": NaN}', "column 10"),
        (b'{"a":' + b"[" * 60_000, "recursion"),
        (b'{"suffix": "\xff"}', "unicode"),
        (b'{"suffix": "\\ud800"}', "hex escape"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "out of range"),
        (b"model=x&training_file=y", "Send a JSON object"),
    ],
)
def test_a_body_that_is_not_json(live: Live, body: bytes, words: str) -> None:
    error = error_of(submit(live, body))
    assert error["code"] == "invalid_json"
    assert words in error["message"]


def test_a_body_that_is_no_object(live: Live) -> None:
    assert "must be an object" in error_of(submit(live, []))["message"]


def test_a_body_beyond_the_limit_is_refused_while_it_is_read(live: Live) -> None:
    def endless() -> Any:
        yield b'{"model": "'
        for _ in range(100):  # chunked, so that no Content-Length tells
            yield b"x" * 1024

    with live.http() as http:
        answer = http.post("/fine_tuning/jobs", content=endless())
    error = error_of(answer, 413)
    assert error["code"] == "too_large"
    assert str(64 * 1024) in error["message"]


@pytest.mark.parametrize("param", ["training_file", "validation_file"])
class TestFiles:
    def submit(self, live: Live, training_file: str, param: str, file_id: str) -> httpx.Response:
        return submit(live, {"model": MODEL, "training_file": training_file, param: file_id})

    def test_another_purpose(self, live: Live, training_file: str, param: str) -> None:
        other = live.upload(purpose="batch")
        error = error_of(self.submit(live, training_file, param, other))
        assert (error["code"], error["param"]) == ("wrong_purpose", param)
        assert "'batch'" in error["message"]

    def test_someone_elses(self, live: Live, training_file: str, param: str) -> None:
        other = live.upload(key=live.stranger_key)
        error = error_of(self.submit(live, training_file, param, other), 404)
        assert error["param"] == param

    def test_a_deleted_one(self, live: Live, training_file: str, param: str) -> None:
        deleted = live.upload()
        with live.http() as http:
            assert http.delete(f"/files/{deleted}").json()["deleted"]
        error = error_of(self.submit(live, training_file, param, deleted), 404)
        assert error["param"] == param
        assert deleted in error["message"]


@pytest.mark.parametrize(
    ("url", "param"),
    [
        ("/files?limit=0", "limit"),
        ("/files?order=up", "order"),
        ("/fine_tuning/jobs?limit=101", "limit"),
        ("/fine_tuning/jobs?limit=ten", "limit"),
        ("/fine_tuning/jobs/x/metrics?after_step=99999999999", "after_step"),
        ("/fine_tuning/jobs/x/metrics?split=test", "split"),
    ],
)
def test_query_parameters(live: Live, url: str, param: str) -> None:
    with live.http() as http:
        error = error_of(http.get(url))
    assert (error["code"], error["param"]) == ("invalid_value", param)


@pytest.mark.parametrize("url", ["/files/%00", "/models/a%00b", "/files?purpose=%00"])
def test_nul_in_the_url(live: Live, url: str) -> None:
    with live.http() as http:
        assert "NUL" in error_of(http.get(url))["message"]


def test_an_unknown_cursor(live: Live) -> None:
    with live.http() as http:
        job = submit(live, {"model": MODEL, "training_file": live.upload()}).json()["id"]
        error = error_of(http.get(f"/fine_tuning/jobs/{job}/events?after=ftevent-none"), 404)
    assert error["param"] == "after"


@pytest.mark.parametrize("given", [{}, {"txt": "a"}, 7])
def test_an_input_of_no_known_form(live: Live, given: Any) -> None:
    """What is said is of the field and of what it may be, not of each form that was tried."""
    with live.http() as http:
        error = error_of(http.post("/predictions", json={"model": "ft:a", "input": given}))
    assert error["param"] == "input"
    assert "constrained" not in error["message"]
    assert "an object with `text`" in error["message"]


@pytest.mark.parametrize(
    ("given", "param", "code", "told"),
    [
        ({"text": 1}, "input.text", "invalid_value", "text of 1 to 20000 characters; 1 was given"),
        ({"text": "a", "target_language": ""}, "input.target_language", "invalid_value", "1 to 64"),
        ({"text": "a", "text_pai": "b"}, "input.text_pai", "unknown_parameter", "`text_pair`?"),
        (
            {"messages": [{"role": "user"}]}, "input.messages.0.content",
            "missing_required_parameter", "is required",
        ),
    ],
)  # fmt: skip
def test_an_input_that_has_what_tells_its_form_is_judged_by_that_form(
    live: Live, given: Any, param: str, code: str, told: str
) -> None:
    with live.http() as http:
        error = error_of(http.post("/predictions", json={"model": "ft:a", "input": given}))
    assert (error["param"], error["code"]) == (param, code)
    assert told in error["message"]
    assert "details" not in error or not error["details"]


def test_a_comparison_with_what_is_not_there(live: Live) -> None:
    with live.http() as http:
        error = error_of(http.get("/fine_tuning/compare?job=a&job=b"), 404)
    assert error["param"] == "job"
