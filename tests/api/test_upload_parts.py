"""OpenAI's Uploads: parts in any order and in parallel, completed whole or not at all."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from sqlalchemy import text

from core.doorbell import Doorbell
from core.storage import ObjectMissing
from models import uploads
from models.db import transaction
from models.uploads import UploadPart
from tests.api.conftest import Live
from worker.context import Context
from worker.reconcilers import spent_parts


def begin(live: Live, data: bytes) -> openai.types.Upload:
    return live.openai().uploads.create(
        bytes=len(data), filename="train.csv", mime_type="text/csv", purpose="fine-tune"
    )


def test_upload_file_chunked_of_the_stock_package(live: Live, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    path = tmp_path / "train.jsonl"
    path.write_bytes(data)
    upload = live.openai().uploads.upload_file_chunked(
        file=path,
        mime_type="application/jsonl",
        purpose="fine-tune",
        part_size=1_000_000,
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
    )
    assert upload.status == "completed"
    assert upload.file is not None
    assert (upload.file.bytes, upload.file.filename) == (len(data), "train.jsonl")
    assert live.openai().files.content(upload.file.id).content == data
    assert live.openai().files.retrieve(upload.file.id).status == "uploaded"


def test_parts_in_parallel_are_joined_in_the_order_of_completion(live: Live) -> None:
    pieces = [os.urandom(70_000 + number) for number in range(8)]
    data = b"".join(pieces)
    upload = begin(live, data)
    with ThreadPoolExecutor(8) as pool:
        added = pool.map(
            lambda piece: live.openai().uploads.parts.create(upload.id, data=piece), pieces
        )
        part_ids = [part.id for part in added]
    done = live.openai().uploads.complete(upload.id, part_ids=part_ids)
    assert done.file is not None
    assert live.openai().files.content(done.file.id).content == data


def test_completing_at_once_and_again_gives_one_file(live: Live) -> None:
    data = os.urandom(200_000)
    upload = begin(live, data)
    part = live.openai().uploads.parts.create(upload.id, data=data)
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(
                lambda _: live.openai().uploads.complete(upload.id, part_ids=[part.id]), range(4)
            )
        )
    again = live.openai().uploads.complete(upload.id, part_ids=[part.id])
    assert {one.file.id for one in [*done, again] if one.file} == {again.file.id}  # type: ignore[union-attr]


def test_what_does_not_add_up_is_refused_and_can_be_mended(live: Live) -> None:
    data = os.urandom(100_000)
    upload = begin(live, data)
    client = live.openai()
    first = client.uploads.parts.create(upload.id, data=data[:60_000])
    cases = [
        ([first.id], None, "part_ids", "upload_size_mismatch"),
        ([first.id, "part_other"], None, "part_ids", "unknown_part"),
        ([first.id, first.id], None, "part_ids", None),
    ]
    rest = client.uploads.parts.create(upload.id, data=data[60_000:])
    cases.append(
        (
            [rest.id, first.id],
            hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "md5",
            "checksum_mismatch",
        )
    )
    for part_ids, md5, param, code in cases:
        with pytest.raises(openai.BadRequestError) as caught:
            client.uploads.complete(upload.id, part_ids=part_ids, md5=md5 or openai.omit)
        assert caught.value.param == param
        assert code is None or caught.value.code == code
    done = client.uploads.complete(upload.id, part_ids=[first.id, rest.id])
    assert done.file is not None
    assert client.files.content(done.file.id).content == data


def test_a_clients_own_retry_of_a_part_adds_nothing(live: Live) -> None:
    upload = begin(live, b"x" * 10)
    first = live.openai().uploads.parts.create(upload.id, data=b"x" * 10)
    again = live.openai().uploads.parts.create(
        upload.id, data=b"x" * 10, extra_headers={"x-stainless-retry-count": "1"}
    )
    assert again.id == first.id


def test_a_retry_of_a_part_that_is_like_another_completes_all_the_same(live: Live) -> None:
    """The second half's first try was lost; told by its content, it is the first half."""
    upload = begin(live, b"x" * 20)
    client = live.openai()
    part_ids = [
        client.uploads.parts.create(
            upload.id, data=b"x" * 10, extra_headers={"x-stainless-retry-count": retry}
        ).id
        for retry in "01"
    ]
    done = client.uploads.complete(upload.id, part_ids=part_ids)
    assert done.file is not None
    assert client.files.content(done.file.id).content == b"x" * 20


def test_parts_are_not_taken_without_end(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_PARTS", 2)
    upload = begin(live, b"x" * 20)
    for _ in range(2):
        live.openai().uploads.parts.create(upload.id, data=b"x")
    with pytest.raises(openai.BadRequestError, match="larger parts"):
        live.openai().uploads.parts.create(upload.id, data=b"x")


def test_parts_cannot_outgrow_what_was_announced(live: Live) -> None:
    upload = begin(live, b"x" * 10)
    with pytest.raises(openai.APIStatusError) as caught:
        live.openai().uploads.parts.create(upload.id, data=b"x" * 11)
    assert caught.value.status_code == 413
    for _ in range(2):
        live.openai().uploads.parts.create(upload.id, data=b"x" * 10)
    with pytest.raises(openai.BadRequestError, match="more than twice"):
        live.openai().uploads.parts.create(upload.id, data=b"x" * 10)


def test_a_cancelled_or_expired_upload_takes_nothing_more(live: Live) -> None:
    client = live.openai()
    cancelled, late = begin(live, b"x"), begin(live, b"x")
    assert client.uploads.cancel(cancelled.id).status == "cancelled"
    assert client.uploads.cancel(cancelled.id).status == "cancelled"
    with transaction(live.engine) as session:
        session.execute(
            text("UPDATE uploads SET expires_at = now() - interval '1 second' WHERE id = :id"),
            {"id": late.id},
        )
    for upload, state in [(cancelled, "cancelled"), (late, "expired")]:
        with pytest.raises(openai.ConflictError) as caught:
            client.uploads.parts.create(upload.id, data=b"x")
        assert caught.value.code == f"upload_{state}"
        assert caught.value.response.headers["x-should-retry"] == "false"


def test_cleaning_takes_the_parts_of_uploads_that_ended_and_no_others(live: Live) -> None:
    client = live.openai()
    ended, pending = begin(live, b"abc"), begin(live, b"abc")
    gone, kept = (
        client.uploads.parts.create(upload.id, data=b"abc") for upload in (ended, pending)
    )
    client.uploads.cancel(ended.id)
    with transaction(live.engine) as session:
        keys = {
            part_id: session.get_one(UploadPart, part_id).storage_key
            for part_id in (gone.id, kept.id)
        }
    context = Context(live.settings, live.engine, live.store, Doorbell(live.settings))
    spent_parts.reconcile(context)
    spent_parts.reconcile(context)
    assert live.store.size(keys[kept.id]) == 3
    with pytest.raises(ObjectMissing):
        live.store.size(keys[gone.id])


def test_another_projects_upload_does_not_exist(live: Live) -> None:
    upload = begin(live, b"x")
    stranger = live.openai(live.stranger_key)
    for call in (
        lambda: stranger.uploads.parts.create(upload.id, data=b"x"),
        lambda: stranger.uploads.complete(upload.id, part_ids=["part_x"]),
        lambda: stranger.uploads.cancel(upload.id),
    ):
        with pytest.raises(openai.NotFoundError):
            call()
