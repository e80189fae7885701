"""One job for one call, however often it comes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.api.conftest import Live

KEY = "Idempotency-Key"
RETRY = "x-stainless-retry-count"


@pytest.fixture
def training_file(live: Live) -> str:
    return live.upload()


def submit(live: Live, training_file: str, seed: int = 1, **headers: str) -> httpx.Response:
    body = {"model": "all-MiniLM-L6-v2", "training_file": training_file, "seed": seed}
    with live.http() as http:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.post("/fine_tuning/jobs", json=body, headers=named)


def job_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize("header", [{KEY: "fifty"}, {RETRY: "1"}])
def test_many_equal_calls_at_once_make_one_job(
    live: Live, training_file: str, header: dict[str, str]
) -> None:
    if RETRY in header:
        submit(live, training_file)

    def again(_: int) -> httpx.Response:
        return submit(live, training_file, **header)  # type: ignore[arg-type]

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(again, range(24)))
    assert len({job_of(answer) for answer in answers}) == 1
    with live.http() as http:
        jobs = http.get("/fine_tuning/jobs", params={"limit": 100}).json()["data"]
    assert sum(job["training_file"] == training_file for job in jobs) == 1


def test_a_key_with_another_body_is_refused(live: Live, training_file: str) -> None:
    first = job_of(submit(live, training_file, Idempotency_Key="another"))
    other = submit(live, training_file, seed=2, Idempotency_Key="another")
    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert job_of(submit(live, training_file, Idempotency_Key="another")) == first


def test_a_refused_call_is_not_remembered(live: Live, training_file: str) -> None:
    refused = submit(live, "file-none", Idempotency_Key="mended")
    assert refused.status_code == 404
    job_of(submit(live, training_file, Idempotency_Key="mended"))


def test_the_first_answer_stands_when_the_file_is_gone(live: Live, training_file: str) -> None:
    first = job_of(submit(live, training_file, Idempotency_Key="gone"))
    with live.http() as http:
        http.delete(f"/files/{training_file}")
        http.post(f"/fine_tuning/jobs/{first}/cancel")
    again = submit(live, training_file, Idempotency_Key="gone")
    assert job_of(again) == first
    assert again.json()["status"] == "cancelled"


def test_equal_calls_that_are_no_retries_make_two_jobs(live: Live, training_file: str) -> None:
    first = job_of(submit(live, training_file, X_Stainless_Retry_Count="0"))
    second = job_of(submit(live, training_file))
    assert first != second


def test_a_retry_whose_first_try_never_came_makes_a_job(live: Live, training_file: str) -> None:
    job_of(submit(live, training_file, X_Stainless_Retry_Count="2"))


def test_keys_of_projects_do_not_meet(live: Live, training_file: str) -> None:
    mine = job_of(submit(live, training_file, Idempotency_Key="shared"))
    theirs = live.upload(key=live.stranger_key)
    with live.http(live.stranger_key) as http:
        body = {"model": "all-MiniLM-L6-v2", "training_file": theirs}
        answer = http.post("/fine_tuning/jobs", json=body, headers={KEY: "shared"})
    assert job_of(answer) != mine


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_of_no_use(live: Live, training_file: str, key: str) -> None:
    answer = submit(live, training_file, Idempotency_Key=key)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].lower() == "idempotency-key"


def upload(live: Live, content: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with live.http() as http:
        return http.post(
            "/files",
            data={"purpose": "fine-tune"},
            files={"file": ("train.csv", content)},
            headers=named,
        )


@pytest.mark.parametrize("header", [{KEY: "one-file"}, {RETRY: "1"}])
def test_equal_uploads_at_once_make_one_file(live: Live, header: dict[str, str]) -> None:
    content = f"text,label\n{header},a\nand,b\n".encode()
    if RETRY in header:
        upload(live, content)

    def again(_: int) -> httpx.Response:
        return upload(live, content, **header)

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(again, range(12)))
    assert len({job_of(answer) for answer in answers}) == 1
    with live.http() as http:
        made = job_of(answers[0])
        assert http.get(f"/files/{made}/content").content == content


def test_an_uploads_key_with_other_content_is_refused(live: Live) -> None:
    job_of(upload(live, b"text,label\nfirst,a\nand,b\n", Idempotency_Key="content"))
    other = upload(live, b"text,label\nother,a\nand,b\n", Idempotency_Key="content")
    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency_key_reused"
