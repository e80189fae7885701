"""One contract, two stores: a local folder, and S3 as moto's server speaks it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from core.clock import now
from core.errors import TooLarge
from core.settings import Settings
from core.storage import (
    READ_BYTES,
    ObjectCorrupt,
    ObjectMissing,
    ObjectStore,
    StorageUnavailable,
)


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return ObjectStore.from_settings(Settings(data_dir=tmp_path))
    endpoint = request.getfixturevalue("s3_endpoint")
    bucket = f"bucket-{os.urandom(4).hex()}"
    boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    ).create_bucket(Bucket=bucket)
    return ObjectStore.from_settings(
        Settings(
            storage_url=f"s3://{bucket}/some/prefix",
            s3_endpoint=endpoint,
            s3_access_key_id="key",
            s3_secret_access_key="secret",
        )
    )


async def chunks(data: bytes, size: int = 700_001) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def test_a_stream_is_hashed_as_it_is_written(store: ObjectStore) -> None:
    data = os.urandom(11 * 1024 * 1024 + 13)
    written = asyncio.run(store.write_stream("files/a/b", chunks(data)))
    assert written.bytes == len(data)
    assert written.sha256 == hashlib.sha256(data).hexdigest()
    assert store.read_bytes("files/a/b") == data
    assert store.size("files/a/b") == len(data)


def test_any_range_comes_back(store: ObjectStore) -> None:
    data = os.urandom(9_000_000)
    store.write_bytes("x", data)

    async def read(start: int, end: int) -> bytes:
        return b"".join([chunk async for chunk in store.stream("x", start, end)])

    ends = [(0, 9_000_000), (0, 1), (8_999_999, 9_000_000), (1000, 200_000), (5, 5)]
    for start, end in [*ends, (0, READ_BYTES), (7, READ_BYTES + 7), (1, 2 * READ_BYTES)]:
        assert asyncio.run(read(start, end)) == data[start:end]


def test_too_large_a_stream_leaves_nothing(store: ObjectStore) -> None:
    with pytest.raises(TooLarge):
        asyncio.run(store.write_stream("big", chunks(bytes(20_000_000)), limit=12_000_000))
    with pytest.raises(ObjectMissing):
        store.size("big")


def test_a_stream_that_breaks_off_leaves_nothing(store: ObjectStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(1_000_000)
        raise ConnectionResetError("the client went away")

    with pytest.raises(Exception, match="client went away"):
        asyncio.run(store.write_stream("part", broken()))
    with pytest.raises(ObjectMissing):
        store.size("part")


def test_fetch_verifies_and_never_shows_wrong_bytes(store: ObjectStore, tmp_path: Path) -> None:
    written = store.write_bytes("data", b"right bytes")
    target = tmp_path / "cache" / "data"
    store.fetch("data", target, sha256=written.sha256)
    assert target.read_bytes() == b"right bytes"

    store.write_bytes("data", b"wrong bytes")
    other = tmp_path / "cache" / "other"
    with pytest.raises(ObjectCorrupt):
        store.fetch("data", other, sha256=written.sha256)
    assert sorted(p.name for p in other.parent.iterdir()) == ["data"]


def test_files_are_written_whole(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(9_000_000))
    written = store.write_file("jobs/1/output/model.safetensors", path)
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(store.keys("jobs/1")) == ["jobs/1/output/model.safetensors"]


def test_what_is_read_back_must_be_what_was_written(store: ObjectStore) -> None:
    written = store.write_bytes("data", b"right bytes")
    store.verify("data", sha256=written.sha256)
    store.write_bytes("data", b"wrong bytes")
    with pytest.raises(ObjectCorrupt):
        store.verify("data", sha256=written.sha256)
    with pytest.raises(ObjectMissing):
        store.verify("nothing", sha256=written.sha256)


def test_entries_tell_when_they_were_written(store: ObjectStore) -> None:
    store.write_bytes("jobs/1/a", b"x")
    (entry,) = store.entries("jobs")
    assert entry.key == "jobs/1/a"
    assert abs(entry.modified - now()) < timedelta(minutes=1)


def test_a_killed_writer_leaves_only_what_a_sweep_takes(tmp_path: Path) -> None:
    store = ObjectStore.from_settings(Settings(data_dir=tmp_path))
    writer = """
import asyncio, sys
from core.settings import Settings
from core.storage import ObjectStore

async def endless():
    while True:
        yield bytes(9_000_000)
        await asyncio.sleep(0.01)

store = ObjectStore.from_settings(Settings(data_dir=sys.argv[1]))
asyncio.run(store.write_stream("files/p/a", endless(), limit=10**9))
"""
    began = now()
    with subprocess.Popen([sys.executable, "-c", writer, str(tmp_path)]) as process:
        while not (staged := [p for p in (tmp_path / "storage").rglob("*") if p.is_file()]):
            time.sleep(0.01)
        process.kill()
    assert list(store.keys("files")) == []
    assert store.sweep(began - timedelta(hours=1)) == 0
    assert store.sweep(now() + timedelta(seconds=1)) == len(staged)
    assert not any(p.is_file() for p in (tmp_path / "storage").rglob("*"))


def test_deletion_may_be_repeated(store: ObjectStore) -> None:
    store.write_bytes("gone", b"x")
    store.delete("gone")
    store.delete("gone")
    with pytest.raises(ObjectMissing):
        store.read_bytes("gone")


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    written = store.write_bytes("empty", b"")
    assert (written.bytes, store.size("empty")) == (0, 0)


def test_a_store_that_is_away_says_so() -> None:
    away = ObjectStore.from_settings(
        Settings(
            storage_url="s3://bucket",
            s3_endpoint="http://127.0.0.1:9",
            s3_access_key_id="key",
            s3_secret_access_key="secret",
        )
    )
    with pytest.raises(StorageUnavailable):
        away.check()


def test_an_unknown_scheme_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(SystemExit, match=r"file:///.*s3://"):
        ObjectStore.from_settings(Settings(storage_url="ftp://host/path"))
