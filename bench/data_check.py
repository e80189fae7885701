"""How fast a JSON Lines file is checked and normalised, beside what decoding alone takes.

In one run, on generated data: texts with labels (rows of about 200 bytes) and chats. Each of these
reads the file from the page cache, in turn, and the best of the rounds counts:

- json.loads of each line
- msgspec's bare decode of each line, to plain objects that are thrown away
- ours: `prepare`, which decodes, checks each value, looks for repeats, writes and hashes the Arrow
  file, and makes the report

Wall time, and processor time of all threads beside it, which other work on the machine disturbs
less. Then `prepare` of a million texts, and of as much in chats, each in a process of its own with
its peak of memory.

    python -m bench.data_check [ROUNDS] [MEGABYTES] [ROWS]
"""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa

from ingest.prepare import prepare

KINDS = {"text-classification": "texts with labels", "text-generation": "chats"}


def _sentences(seed: int) -> Callable[[int], str]:
    """Texts of common letters, with the punctuation, quotes and accents that texts have."""
    chance = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(20_000)] + [
        "café",
        "naïve",
        '"so"',
        "it's",
        "well:",
        "no.",
        "yes,",
        "\n",
    ]
    weights = [1] * 20_000 + [150, 50, 100, 300, 100, 600, 600, 100]
    pool = chance.choices(words, weights, k=1_000_000)

    def sentence(words: int) -> str:
        start = chance.randrange(len(pool) - words)
        return " ".join(pool[start : start + words])

    return sentence


def rows(task: str) -> Iterator[bytes]:
    """Lines of about 200 bytes of text with a label, or of chats of two to six messages."""
    chance, sentence = random.Random(1), _sentences(2)
    labels = ["positive", "negative", "neutral"]
    while True:
        if task == "text-classification":
            text = sentence(max(3, round(chance.gauss(26, 12))))
            row: object = {"text": text, "label": chance.choice(labels)}
        else:
            turns = [{"role": "system", "content": "You are a helpful assistant."}]
            for _ in range(chance.randint(1, 3)):
                turns.append({"role": "user", "content": sentence(chance.randint(4, 40))})
                turns.append({"role": "assistant", "content": sentence(chance.randint(4, 120))})
            row = {"messages": turns}
        yield json.dumps(row, ensure_ascii=False).encode() + b"\n"


def write(path: Path, task: str, size: int | None = None, count: int | None = None) -> None:
    written = 0
    with path.open("wb") as file:
        for number, line in enumerate(rows(task)):
            if number == count or (size is not None and written > size):
                return
            written += file.write(line)


def decode_each(path: Path, decode: Callable[[bytes], object]) -> None:
    with path.open("rb") as file:
        for line in file:
            decode(line)


def measure(path: Path, task: str, rounds: int) -> None:
    out = path.with_suffix(".arrow")
    ways: dict[str, Callable[[], object]] = {
        "json.loads of each line": lambda: decode_each(path, json.loads),
        "msgspec's decode of each line": lambda: decode_each(path, msgspec.json.decode),
        "ours: check, normalise, report": lambda: prepare(path, task, out=out, role="training"),
    }
    wall, processor = dict.fromkeys(ways, 1e9), dict.fromkeys(ways, 1e9)
    for _ in range(rounds):
        for name, way in ways.items():
            began, used = time.perf_counter(), time.process_time()
            way()
            wall[name] = min(wall[name], time.perf_counter() - began)
            processor[name] = min(processor[name], time.process_time() - used)
    size = path.stat().st_size
    count = path.read_bytes().count(b"\n")
    print(f"{KINDS[task]}: {count:,} rows, {size / 1e6:.0f} MB, mean {size / count:.0f} bytes")
    *_, bare, ours = ways
    for name in ways:
        print(
            f"  {name:32s} {size / 1e6 / wall[name]:7.0f} MB/s"
            f"   by processor time {size / 1e6 / processor[name]:7.0f} MB/s"
        )
    print(
        f"  ours / msgspec's decode          {wall[bare] / wall[ours]:7.2f}     "
        f"   by processor time {processor[bare] / processor[ours]:7.2f}"
    )


_PEAK = """
import sys, time
from pathlib import Path
from ingest.prepare import prepare

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

before = peak()
began = time.perf_counter()
prepared = prepare(Path(sys.argv[1]), sys.argv[2], out=Path(sys.argv[3]), role="training")
print(prepared.rows, time.perf_counter() - began, before, peak())
"""


def peak(path: Path, task: str) -> None:
    """What a process that prepares the file takes at most, in MiB."""
    told = subprocess.run(
        [sys.executable, "-c", _PEAK, path, task, path.with_suffix(".arrow")],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
    ).stdout.split()
    count, seconds, before, after = map(float, told)
    print(
        f"{KINDS[task]}: {count:,.0f} rows, {path.stat().st_size / 1e6:.0f} MB in {seconds:.1f} s; "
        f"peak memory {after:.0f} MiB, of which {before:.0f} before it began"
    )


def main() -> None:
    given = [int(argument) for argument in sys.argv[1:]]
    rounds, megabytes, million = (*given, *(5, 48, 1_000_000)[len(given) :])
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, msgspec {msgspec.__version__}, "
        f"pyarrow {pa.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for task in KINDS:
            path = Path(folder) / "train.jsonl"
            write(path, task, size=megabytes * 10**6)
            measure(path, task, rounds)
        # A chat is as long as some six texts, so fewer of them are as much.
        for task, count in zip(KINDS, (million, million // 6), strict=True):
            write(path, task, count=count)
            peak(path, task)


if __name__ == "__main__":
    main()
