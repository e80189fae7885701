"""Coverage-guided fuzzing of everything that reads users' files: `make fuzz MINUTES=10`.

An input is one byte that picks the task and a file. It starts from the good and the bad files of
the tests. Each must end, within the limits, in a dataset or in an error of the user's that names
the file. Whatever else happens is printed, written to `fuzz-findings/` and ends the run: it becomes
a bad file of the tests (`tests/ingest/bad/`) and is mended.

    python -m tests.ingest.fuzz MINUTES
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ingest"]):
    from core.errors import BadData, InvalidRequest, Unprocessable
    from ingest import tasks
    from ingest.describe import describe
    from ingest.languages import languages
    from ingest.limits import Limits
    from ingest.prepare import prepare
    from tests.ingest import test_infer
    from tests.ingest.bad import archives, media, tables, text_tasks

TASKS: list[str | None] = [None, *(format.name for format in tasks.all_formats())]
LIMITS = Limits(
    max_entry_bytes=4 * 1024**2,
    max_document_bytes=1024**2,
    max_unpacked_bytes=16 * 1024**2,
    ratio_free_bytes=1024**2,
    max_pixels=10**6,
    max_seconds=60,
    block_bytes=256,
)
LARGEST = 20_000
"""Bytes of a file: larger ones only make the run slower."""
SECONDS = 20
"""What one input may take."""
MEMORY_MB = 2048
FINDINGS = Path("fuzz-findings")


def write_corpus(folder: Path) -> None:
    cases = [*tables.CASES, *text_tasks.CASES, *archives.CASES, *media.CASES]
    seeds = [(case.task, case.content) for case in cases] + list(test_infer.TOLD.values())
    for number, (task, content) in enumerate(seeds):
        data = content.encode() if isinstance(content, str) else content
        if len(data) < LARGEST:
            (folder / f"seed-{number}").write_bytes(bytes([TASKS.index(task)]) + data)


def one_input(folder: Path, data: bytes) -> None:
    source, out = folder / "upload", folder / "out.arrow"
    source.write_bytes(data[1:])
    task = TASKS[(data[0] if data else 0) % len(TASKS)]
    try:
        prepared = prepare(source, task, out=out, role="training", limits=LIMITS, skip_invalid=0.05)
    except BadData as error:
        if not error.details or not error.details[0]["file"].startswith("upload"):
            raise AssertionError(f"an error without its place: {error}") from error
        if out.exists():
            raise AssertionError("a refused file leaves something behind") from error
    except (InvalidRequest, Unprocessable):
        return
    else:
        if prepared.rows < 1:
            raise AssertionError("a dataset without rows")
        describe(prepared, out, "training")
        out.unlink()


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    FINDINGS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as made:
        corpus, folder = Path(made, "corpus"), Path(made, "run")
        corpus.mkdir()
        folder.mkdir()
        write_corpus(corpus)
        languages(["the model of languages is read now, not in the time of the first input"])
        options = [
            f"-max_total_time={round(minutes * 60)}",
            f"-max_len={LARGEST}",
            f"-timeout={SECONDS}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-artifact_prefix={FINDINGS}/",
            "-print_final_stats=1",
            str(corpus),
        ]
        atheris.Setup([sys.argv[0], *options], lambda data: one_input(folder, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
