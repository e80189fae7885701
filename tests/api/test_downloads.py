"""Files, a model's files and its archive: ranges, ETags, conditions, HEAD."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from urllib.parse import quote

import httpx
import pytest

from models.registry import FineTunedModel
from tests.api.conftest import Live
from tests.api.rows import FILES, make_model

WEIGHTS = FILES["model.safetensors"]


@pytest.fixture(scope="module")
def model(live: Live) -> FineTunedModel:
    return make_model(live)


@pytest.fixture(scope="module")
def urls(live: Live, model: FineTunedModel) -> dict[str, tuple[str, bytes]]:
    """What can be downloaded, each with its bytes."""
    file_id = live.upload(WEIGHTS)
    archive = f"/models/{model.id}/archive"
    with live.http() as http:
        tar = http.get(archive).content
    return {
        "file": (f"/files/{file_id}/content", WEIGHTS),
        "model file": (f"/models/{model.id}/files/model.safetensors", WEIGHTS),
        "archive": (archive, tar),
    }


KINDS = ["file", "model file", "archive"]


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, urls: dict[str, tuple[str, bytes]]) -> tuple[str, bytes]:
    return urls[request.param]


def get(live: Live, url: str, method: str = "GET", **headers: str) -> httpx.Response:
    with live.http() as http:
        return http.request(
            method, url, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )


def test_whole(live: Live, target: tuple[str, bytes]) -> None:
    url, content = target
    answer = get(live, url, Accept="application/binary")  # as the OpenAI client asks
    assert answer.status_code == 200
    assert answer.content == content
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["accept-ranges"] == "bytes"
    assert not answer.headers["etag"].startswith("W/")
    assert get(live, url).headers["etag"] == answer.headers["etag"]


def test_the_etag_of_a_file_is_its_sha256(live: Live, urls: dict[str, tuple[str, bytes]]) -> None:
    expected = f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    for kind in ("file", "model file"):
        assert get(live, urls[kind][0]).headers["etag"] == expected


def test_ranges(live: Live, target: tuple[str, bytes]) -> None:
    url, content = target
    size = len(content)
    generator = random.Random(5)
    pairs = [sorted(generator.sample(range(size), 2)) for _ in range(25)]
    cases = [(f"bytes={a}-{b}", a, b + 1) for a, b in pairs] + [
        ("bytes=0-0", 0, 1),
        (f"bytes={size - 1}-", size - 1, size),
        (f"bytes=7-{size * 10}", 7, size),
        ("bytes=-9", size - 9, size),
        (f"bytes=-{size * 10}", 0, size),
    ]
    for asked, start, end in cases:
        answer = get(live, url, Range=asked)
        assert answer.status_code == 206, asked
        assert answer.content == content[start:end], asked
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.headers["content-length"] == str(end - start)


def test_ranges_that_cannot_be_satisfied(live: Live, target: tuple[str, bytes]) -> None:
    url, content = target
    for asked in (f"bytes={len(content)}-", "bytes=-0"):
        answer = get(live, url, Range=asked)
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{len(content)}"
        assert answer.json()["error"]["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=-", "lines=1-2", "bytes=0-1,5-6", "bytes=" + "9" * 30 + "-", "x"]
)
def test_a_range_that_means_nothing_gives_everything(
    live: Live, target: tuple[str, bytes], asked: str
) -> None:
    url, content = target
    answer = get(live, url, Range=asked)
    assert (answer.status_code, answer.content) == (200, content)


def test_if_range(live: Live, target: tuple[str, bytes]) -> None:
    url, content = target
    etag = get(live, url).headers["etag"]
    same = get(live, url, Range="bytes=3-", If_Range=etag)
    assert (same.status_code, same.content) == (206, content[3:])
    for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        changed = get(live, url, Range="bytes=3-", If_Range=other)
        assert (changed.status_code, changed.content) == (200, content)


def test_if_none_match(live: Live, target: tuple[str, bytes]) -> None:
    url, _ = target
    etag = get(live, url).headers["etag"]
    for named in (etag, f"W/{etag}", f'"a", {etag}', "*"):
        answer = get(live, url, If_None_Match=named)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    assert get(live, url, If_None_Match='"a"').status_code == 200


def test_head(live: Live, target: tuple[str, bytes]) -> None:
    url, _ = target
    full, head = get(live, url), get(live, url, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "content-type", "accept-ranges"):
        assert head.headers[name] == full.headers[name]
    assert get(live, url, "HEAD", Range="bytes=2-4").headers["content-length"] == "3"


def test_the_archive_holds_the_models_files(
    live: Live, model: FineTunedModel, urls: dict[str, tuple[str, bytes]]
) -> None:
    with tarfile.open(fileobj=io.BytesIO(urls["archive"][1])) as tar:
        names = tar.getnames()
        (folder,) = {name.split("/")[0] for name in names}
        assert ":" not in folder
        assert model.job_id.removeprefix("ftjob-") in folder
        for path, content in FILES.items():
            member = tar.extractfile(f"{folder}/{path}")
            assert member is not None
            assert member.read() == content
        assert len(names) == len(FILES)
        assert tar.getmembers()[0].mtime == int(model.created_at.timestamp())


def test_a_download_goes_on_after_a_cut(live: Live, urls: dict[str, tuple[str, bytes]]) -> None:
    url, content = urls["archive"]
    with live.http() as http, http.stream("GET", url) as answer:
        etag = answer.headers["etag"]
        got = next(answer.iter_bytes(3000))
    rest = get(live, url, Range=f"bytes={len(got)}-", If_Range=etag)
    assert got + rest.content == content


def test_ids_arrive_percent_encoded(live: Live, model: FineTunedModel) -> None:
    whole = quote(model.id, safe="")
    listed = get(live, f"/models/{whole}/files").json()["data"]
    assert [(file["path"], file["bytes"]) for file in listed] == [
        (path, len(content)) for path, content in sorted(FILES.items())
    ]
    for file in listed:
        answer = get(live, f"/models/{whole}/files/{quote(file['path'], safe='')}")
        assert answer.content == FILES[file["path"]]
        assert answer.headers["etag"] == file["etag"] == f'"{file["sha256"]}"'
    missing = get(live, f"/models/{whole}/files/../../etc/passwd")
    assert missing.status_code == 404


def test_what_a_model_does_not_have(live: Live, model: FineTunedModel) -> None:
    answer = get(live, f"/models/{model.id}/files/pytorch_model.bin")
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "path"
    for url in ("archive", "files"):
        assert get(live, f"/models/all-MiniLM-L6-v2/{url}").status_code == 404
        with_slash = get(live, f"/models/org%2Fname/{url}")
        assert with_slash.status_code == 404
        assert "'org/name'" in with_slash.json()["error"]["message"]


def test_bytes_that_are_gone_are_an_error_and_no_stub(live: Live) -> None:
    broken = make_model(live, "broken")
    live.store.delete(f"{broken.prefix}/model.safetensors")
    answer = get(live, f"/models/{broken.id}/files/model.safetensors")
    assert answer.status_code == 500
    assert broken.prefix not in answer.text
    with pytest.raises(httpx.RemoteProtocolError):
        get(live, f"/models/{broken.id}/archive")  # broken off: half a tar must not look whole
