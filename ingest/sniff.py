"""What a file is, told from its first bytes. Its name is never asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ingest.lines import BOMS, encoding_of

HEAD_BYTES = 64 * 1024
DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}

FormatName = Literal["empty", "jsonl", "json", "csv", "tsv", "text", "unknown"]


@dataclass(frozen=True)
class Sniffed:
    format: FormatName
    encoding: str = "utf-8"
    delimiter: str | None = None
    description: str = ""
    """What it looks like, in words, for a format that is not read."""


_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"%PDF", "a PDF"),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"SQLite format 3", "an SQLite database"),
)


def sniff(head: bytes) -> Sniffed:
    """`head` is the file's first HEAD_BYTES."""
    if not head:
        return Sniffed("empty")
    for magic, description in _MAGIC:
        if head.startswith(magic):
            return Sniffed("unknown", description=description)
    encoding = encoding_of(head)
    text = _text(head, encoding)
    if not text.strip():
        return Sniffed("empty", encoding)
    if encoding == "utf-8" and _is_binary(head):
        return Sniffed("unknown", description="a binary file")
    start = text.lstrip()
    if start.startswith("["):
        return Sniffed("json", encoding)
    if start.startswith("{"):
        # A document that is spread over lines has its first line end before its object does.
        first = start.split("\n", 1)[0].rstrip()
        spread = first in ("{", "[") or re.fullmatch(r'\{\s*"[^"]*"\s*:\s*[\[{]?', first)
        return Sniffed("json" if spread else "jsonl", encoding)
    delimiter = _delimiter(start)
    if delimiter is None:
        return Sniffed("text", encoding)
    return Sniffed("tsv" if delimiter == "\t" else "csv", encoding, delimiter)


def _text(head: bytes, encoding: str) -> str:
    """The head as text, with whatever the cut left of its last character dropped."""
    for mark, name in BOMS:
        if name == encoding and head.startswith(mark):
            width = {"utf-16": 2, "utf-32": 4}.get(name, 1)
            return head[: len(head) // width * width].decode(encoding, "replace").lstrip("\ufeff")
    return head.decode("utf-8", "replace")


def _is_binary(head: bytes) -> bool:
    """Control characters that no text has, in more than one of ten bytes."""
    controls = len(head) - len(head.translate(None, bytes(range(9)) + bytes(range(14, 32))))
    return controls * 10 > len(head)


def _delimiter(text: str) -> str | None:
    """The delimiter of the header line: the candidate it holds most often outside of quotes."""
    header = re.sub(r'"(?:[^"]|"")*"', "", text.split("\n", 1)[0])
    counts = {candidate: header.count(candidate) for candidate in DELIMITERS}
    best = max(counts, key=lambda candidate: counts[candidate])
    return best if counts[best] else None
