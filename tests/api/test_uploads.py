"""Uploads stream into storage, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import resource
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, tzinfo
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import select

from models.db import transaction
from models.files import File
from tests.api.conftest import CSV, Live
from tests.api.control import context_of
from worker.reconcilers import clean

KEPT = File.removed_at.is_(None)

BOUNDARY = "limit"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    rest = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{rest}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
PURPOSE = part("purpose", b"fine-tune")
FILE = part("file", CSV, "train.csv")


def post(live: Live, body: bytes | Iterable[bytes], **headers: str) -> httpx.Response:
    with live.http() as http:
        return http.post("/files", content=body, headers=HEADERS | headers)


def stored(live: Live) -> set[str]:
    return set(live.store.keys("files"))


def listed(live: Live) -> list[str]:
    with live.http() as http:
        return [file["id"] for file in http.get("/files").json()["data"]]


@pytest.fixture(autouse=True)
def _nothing_is_left_of_a_refused_upload(live: Live) -> Iterator[None]:
    """Whatever happens in a test: each stored object has its row, and the other way round."""
    yield
    with transaction(live.engine) as session:
        assert stored(live) == set(session.scalars(select(File.storage_key).where(KEPT)))


@pytest.mark.parametrize("parts", [[PURPOSE, FILE], [FILE, PURPOSE]])
def test_fields_in_any_order(live: Live, parts: list[bytes]) -> None:
    answer = post(live, b"".join(parts) + END)
    assert answer.status_code == 200
    file = answer.json()
    assert file["sha256"] == hashlib.sha256(CSV).hexdigest()
    assert (file["bytes"], file["filename"], file["status"]) == (
        len(CSV),
        "train.csv",
        "uploaded",
    )


def test_pieces_may_break_anywhere(live: Live) -> None:
    content = b"a\r\n--limi\r\n--limit" + os.urandom(50) + b"\r"
    body = PURPOSE + part("file", content, "x.bin") + END
    answer = post(live, (body[i : i + 1] for i in range(len(body))))
    assert answer.status_code == 200
    with live.http() as http:
        assert http.get(f"/files/{answer.json()['id']}/content").content == content


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("/etc/passwd", "passwd"),
        ("..\\..\\data.csv", "data.csv"),
        ("Übung 日本.csv", "Übung 日本.csv"),
    ],
)
def test_a_file_name_keeps_no_folder(live: Live, sent: str, shown: str) -> None:
    answer = post(live, PURPOSE + part("file", CSV, sent) + END)
    assert answer.json()["filename"] == shown
    with live.http() as http:
        content = http.get(f"/files/{answer.json()['id']}/content")
    assert content.headers["content-disposition"].startswith("attachment; ")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (PURPOSE + part("file", b"", "empty.csv") + END, "empty_file", "file"),
        (FILE + END, "missing_required_parameter", "purpose"),
        (PURPOSE + END, "missing_required_parameter", "file"),
        (PURPOSE + part("file", CSV) + END, "invalid_value", "file"),
        (PURPOSE + part("file", CSV, "..") + END, "invalid_file_name", "file"),
        (PURPOSE + part("file", CSV, "a\tb.csv") + END, "invalid_file_name", "file"),
        (PURPOSE + part("file", CSV, "x" * 256) + END, "invalid_file_name", "file"),
        (part("purpose", b"training") + FILE + END, "invalid_value", "purpose"),
        (FILE + part("purpose", b"fine-tune-results") + END, "invalid_value", "purpose"),
        (part("purpose", b"\xff") + FILE + END, "invalid_request", "purpose"),
        (part("purpose", b"fine\0tune") + FILE + END, "invalid_request", "purpose"),
        (part("purpose", b"x" * 70_000) + FILE + END, "invalid_request", "purpose"),
        (PURPOSE + PURPOSE + FILE + END, "invalid_request", "purpose"),
        (PURPOSE + FILE + FILE + END, "invalid_request", "file"),
        (part("porpose", b"fine-tune") + FILE + END, "unknown_parameter", "porpose"),
        (
            PURPOSE + part("expires_after[seconds]", b"60") + FILE + END,
            "invalid_value",
            "expires_after[seconds]",
        ),
        (
            PURPOSE + part("expires_after[anchor]", b"birth") + FILE + END,
            "invalid_value",
            "expires_after[anchor]",
        ),
        (PURPOSE + FILE, "invalid_multipart", None),
        (PURPOSE + FILE[:-20], "invalid_multipart", None),
        (b"", "invalid_multipart", None),
        (b"not a form", "invalid_multipart", None),
        (b"--limit\r\n\r\nno header\r\n" + END, "invalid_multipart", None),
        (b"--limit\r\nX: " + b"y" * 100_000, "invalid_multipart", None),
    ],
)
def test_a_broken_form(live: Live, body: bytes, code: str, param: str | None) -> None:
    before = stored(live)
    answer = post(live, body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert stored(live) == before


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", ""])
def test_another_content_type(live: Live, kind: str) -> None:
    answer = post(live, PURPOSE + FILE + END, **{"Content-Type": kind})
    assert answer.status_code == 400
    assert "-F purpose=fine-tune" in answer.json()["error"]["message"]


def test_too_many_parts(live: Live) -> None:
    body = b"".join(part(f"x{n}", b"") for n in range(100))
    assert post(live, PURPOSE + body + END).status_code == 400


def test_one_byte_too_many(live: Live) -> None:
    limit = live.settings.max_upload_bytes
    at_limit = post(live, PURPOSE + part("file", bytes(limit), "at.bin") + END)
    assert at_limit.json()["bytes"] == limit
    before = stored(live)
    # In chunks and without a Content-Length, so that only counting tells.
    beyond = post(live, iter([PURPOSE, part("file", bytes(limit + 1), "over.bin"), END]))
    assert beyond.status_code == 413
    error = beyond.json()["error"]
    assert error["code"] == "too_large"
    assert str(limit) in error["message"]
    assert stored(live) == before


def test_an_endless_epilogue_is_cut(live: Live) -> None:
    before = stored(live)
    body = iter([PURPOSE, FILE, END, *[bytes(1024 * 1024)] * 6])
    assert post(live, body).status_code == 413
    assert stored(live) == before


def test_a_client_that_leaves(live: Live) -> None:
    before = listed(live)
    url = urlsplit(live.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 0)
    connection.putrequest("POST", "/v1/files")
    headers: dict[str, Any] = HEADERS | {
        "Authorization": f"Bearer {live.key}",
        "Content-Length": str(3 * 1024 * 1024),
    }
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(PURPOSE + FILE[:-20] + bytes(1024 * 1024))
    connection.close()
    with live.http() as other:  # the server goes on
        assert other.get("/models").status_code == 200
    assert listed(live) == before


def test_memory_does_not_grow_with_the_file(live: Live) -> None:
    mebibyte = 1024 * 1024

    def upload(blocks: int) -> None:
        head, tail = part("file", b"", "big.bin")[:-2], b"\r\n"
        body = [PURPOSE, head, *[bytes(mebibyte)] * blocks, tail, END]
        answer = post(live, iter(body))
        assert answer.json()["bytes"] == blocks * mebibyte
        with live.http() as http:
            http.delete(f"/files/{answer.json()['id']}")
        clean.reconcile(context_of(live))

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    ordinary = live.settings.max_upload_bytes
    live.settings.max_upload_bytes = 512 * mebibyte
    try:
        upload(64)  # fills the buffers
        before = peak()
        upload(192)
        assert peak() - before < 32 * mebibyte
    finally:
        live.settings.max_upload_bytes = ordinary


def test_a_file_lives_by_the_databases_clock(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """By which it expires: where the API's is off, an hour's life is not over at once."""

    class Late(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Late:
            return super().now(tz) - timedelta(hours=1)

    monkeypatch.setattr("core.clock.datetime", Late)
    life = part("expires_after[anchor]", b"created_at") + part("expires_after[seconds]", b"3600")
    file = post(live, PURPOSE + life + FILE + END).json()
    assert file["expires_at"] - file["created_at"] == 3600
    with live.http() as http:
        assert http.get(f"/files/{file['id']}").is_success
