"""What a check holds in memory does not grow with the file, but for a few numbers a row."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PEAK = """
import sys
from pathlib import Path
from ingest.prepare import prepare
prepare(Path(sys.argv[1]), sys.argv[2], out=Path(sys.argv[3]), role="training")
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
MB = 10**6


def peak(tmp_path: Path, lines: Iterator[bytes], task: str, size: int) -> float:
    """In MB, of a process that prepares a file of this size."""
    source = tmp_path / "train"
    with source.open("wb") as file:
        while file.tell() < size:
            file.write(next(lines))
    command = [sys.executable, "-c", PEAK, source, task, tmp_path / "out"]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(told.stdout) * 1024 / MB


def numbered(form: str) -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield form.replace("N", str(number)).encode()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("form", "task"),
    [
        ('{"text": "N' + " words" * 300 + '", "label": "a"}\n', "fill-mask"),
        (
            '{"messages": [{"role": "user", "content": "N"}, {"role": "assistant", "content": "'
            + "words " * 300
            + '"}]}\n',
            "text-generation",
        ),
    ],
)
def test_memory_is_flat(tmp_path: Path, form: str, task: str) -> None:
    small = peak(tmp_path, numbered(form), task, 10 * MB)
    large = peak(tmp_path, numbered(form), task, 110 * MB)
    assert large - small < 40, "of 100 MB more"
