"""A download ends with the right bytes under each name, or with no file under it."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from luthier import AsyncLuthier, DownloadError, Luthier, downloads
from luthier.downloads import OnProgress

from tests.sdk.flawed_server import MODEL, Flaw, FlawedServer, serve

WEIGHTS = random.Random(1).randbytes(200_000)
FILES = {"model.safetensors": WEIGHTS, "onnx/config [1].json": b"{}", "empty.txt": b""}
WHOLE = ("model.safetensors", None, None)

Download = Callable[..., Path]


@pytest.fixture
def server() -> Iterator[FlawedServer]:
    with serve(FlawedServer(dict(FILES))) as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def download(request: pytest.FixtureRequest, server: FlawedServer) -> Download:
    def sync(folder: Path, on_progress: OnProgress | None = None) -> Path:
        with Luthier(base_url=server.url, api_key="key") as client:
            return client.models.download(MODEL, folder, on_progress=on_progress)

    def in_loop(folder: Path, on_progress: OnProgress | None = None) -> Path:
        async def run() -> Path:
            async with AsyncLuthier(base_url=server.url, api_key="key") as client:
                return await client.models.download(MODEL, folder, on_progress=on_progress)

        return asyncio.run(run())

    return sync if request.param == "sync" else in_loop


def part_of(folder: Path, content: bytes = WEIGHTS) -> Path:
    return folder / f".model.safetensors.{hashlib.sha256(content).hexdigest()[:16]}.part"


def written(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_all_files_and_nothing_else(download: Download, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = download(tmp_path / "model", lambda done, total: seen.append((done, total)))
    assert folder == tmp_path / "model"
    assert written(folder) == FILES
    total = sum(map(len, FILES.values()))
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_what_is_here_is_not_fetched_again(
    download: Download, server: FlawedServer, tmp_path: Path
) -> None:
    download(tmp_path)
    server.asked.clear()
    download(tmp_path)
    assert server.asked == []


def test_a_file_of_an_older_model_is_replaced(
    download: Download, server: FlawedServer, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS[::-1])  # same size, other bytes
    download(tmp_path)
    assert written(tmp_path) == FILES


def test_a_cut_connection_is_continued_where_it_broke(
    download: Download, server: FlawedServer, tmp_path: Path
) -> None:
    server.flaws += [Flaw(cut_after=50_000), Flaw(cut_after=70_000)]
    download(tmp_path)
    assert written(tmp_path) == FILES
    etag = server.etag("model.safetensors")
    assert server.asked[:3] == [
        WHOLE,
        ("model.safetensors", "bytes=50000-", etag),
        ("model.safetensors", "bytes=120000-", etag),
    ]


def test_a_part_of_an_earlier_run_is_continued(
    download: Download, server: FlawedServer, tmp_path: Path
) -> None:
    part_of(tmp_path).write_bytes(WEIGHTS[:12_345])
    download(tmp_path)
    assert written(tmp_path) == FILES
    assert server.asked[0][1] == "bytes=12345-"


def test_a_part_of_other_content_is_not_continued(
    download: Download, server: FlawedServer, tmp_path: Path
) -> None:
    other = part_of(tmp_path, b"another model")
    other.write_bytes(b"another")
    download(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS
    assert server.asked[0] == WHOLE
    assert other.read_bytes() == b"another"


@pytest.mark.parametrize(
    "damaged", [b"x" * 5_000, WEIGHTS + b"more", b"x" * len(WEIGHTS)], ids=["half", "long", "whole"]
)
def test_a_damaged_part_is_fetched_anew(download: Download, tmp_path: Path, damaged: bytes) -> None:
    part_of(tmp_path).write_bytes(damaged)
    download(tmp_path)
    assert written(tmp_path) == FILES


@pytest.mark.parametrize(
    "flaw",
    [Flaw(ignore_range=True), Flaw(too_much=True), Flaw(status=503)],
    ids=["range-ignored", "too-much", "unavailable"],
)
def test_a_wrong_answer_to_a_range(
    download: Download, server: FlawedServer, tmp_path: Path, flaw: Flaw
) -> None:
    server.flaws += [Flaw(cut_after=50_000), flaw]
    download(tmp_path)
    assert written(tmp_path) == FILES


def test_another_range_than_was_asked_for_is_not_used(
    download: Download, server: FlawedServer, tmp_path: Path
) -> None:
    server.flaws += [Flaw(cut_after=50_000), Flaw(lie_about_range=True)]
    download(tmp_path)
    assert written(tmp_path) == FILES
    assert server.asked[2] == WHOLE


def test_wrong_bytes_once_are_fetched_again(
    download: Download, server: FlawedServer, tmp_path: Path
) -> None:
    server.flaws += [Flaw(corrupt=True)]
    download(tmp_path)
    assert written(tmp_path) == FILES
    assert server.asked[:2] == [WHOLE, WHOLE]


def test_wrong_bytes_twice_are_an_error_and_no_file(
    download: Download, server: FlawedServer, tmp_path: Path
) -> None:
    server.flaws += [Flaw(corrupt=True), Flaw(corrupt=True)]
    with pytest.raises(DownloadError, match=r"model\.safetensors .*wrong bytes.*SHA-256"):
        download(tmp_path)
    assert written(tmp_path) == {}


def test_a_server_that_sends_nothing_is_given_up_and_what_came_is_kept(
    download: Download,
    server: FlawedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downloads, "TRIES", 2)
    server.flaws += [Flaw(cut_after=50_000), Flaw(cut_after=0), Flaw(cut_after=0)]
    with pytest.raises(DownloadError, match="stopped at 50000 of 200000 bytes"):
        download(tmp_path)
    assert written(tmp_path) == {part_of(tmp_path).name: WEIGHTS[:50_000]}
    download(tmp_path)
    assert written(tmp_path) == FILES


@pytest.mark.parametrize(
    "flaw",
    [Flaw(too_much=True), Flaw(ignore_range=True, cut_after=20_000), Flaw(status=503)],
    ids=["too-much", "range-ignored-and-cut", "unavailable"],
)
def test_a_server_that_never_gets_better_is_given_up(
    download: Download,
    server: FlawedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flaw: Flaw,
) -> None:
    monkeypatch.setattr(downloads, "TRIES", 2)
    server.flaws += [flaw] * 40
    with pytest.raises(DownloadError, match="2 tries got no further"):
        download(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "", "."])
def test_names_that_lead_out_of_the_folder_are_refused(
    download: Download, server: FlawedServer, tmp_path: Path, name: str
) -> None:
    server.files = {name: b"evil"}
    with pytest.raises(DownloadError, match="leads out of the folder"):
        download(tmp_path / "model")
    assert written(tmp_path) == {}


def test_two_downloads_into_one_folder(download: Download, tmp_path: Path) -> None:
    with part_of(tmp_path).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="Another process is downloading"):
            download(tmp_path)
    download(tmp_path)
    assert written(tmp_path) == FILES


def test_killed_at_any_time_there_is_no_half_file(server: FlawedServer, tmp_path: Path) -> None:
    """SIGKILL in mid-file, in a process of its own; the next run goes on from its bytes."""
    code = (
        "import sys; from luthier import Luthier;"
        "Luthier(base_url=sys.argv[1], api_key='key').models.download(sys.argv[2], sys.argv[3])"
    )
    server.flaws += [Flaw(seconds_a_block=0.05)]
    process = subprocess.Popen([sys.executable, "-c", code, server.url, MODEL, str(tmp_path)])
    part = part_of(tmp_path)
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 0):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    assert 0 < kept < len(WEIGHTS)
    assert os.listdir(tmp_path) == [part.name]

    with Luthier(base_url=server.url, api_key="key") as client:
        client.models.download(MODEL, tmp_path)
    assert server.asked[1][1] == f"bytes={kept}-"
    assert written(tmp_path) == FILES
