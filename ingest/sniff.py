"""What a file is, told from its first bytes. Its name is never asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import msgspec

from ingest.lines import BOMS, encoding_of
from ingest.parsers.json_document import LIST_NAMES

HEAD_BYTES = 64 * 1024
DELIMITERS = (",", "\t", ";", "|")

FormatName = Literal[
    "empty", "jsonl", "json", "csv", "tsv", "text", "parquet", "zip", "tar", "gzip", "zstd",
    "unknown",
]  # fmt: skip


@dataclass(frozen=True)
class Sniffed:
    format: FormatName
    encoding: str | None = None
    delimiter: str | None = None
    description: str = ""
    """What it looks like, in words, for a format that is not read."""


_FORMATS: tuple[tuple[bytes, FormatName], ...] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PAR1", "parquet"),
)
_TAR_MAGIC = slice(257, 262), b"ustar"

_KNOWN: tuple[tuple[bytes, str], ...] = (
    (b"ARROW1", "an Arrow file"),
    (b"%PDF", "a PDF"),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x89PNG", "one PNG image"),
    (b"\xff\xd8\xff", "one JPEG image"),
    (b"RIFF", "one WAV recording"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
)

# An object of scalars up to a list of objects under a customary name, as SQuAD's.
_DOCUMENT = re.compile(
    r'\{\s*(?:"[^"]*"\s*:\s*(?:"[^"]*"|[^\s"\[\]{},]+)\s*,\s*)*'
    rf'"(?:{"|".join(LIST_NAMES)})"\s*:\s*\[\s*(?:\{{|\])'
)


def sniff(head: bytes) -> Sniffed:
    """`head` is the file's first HEAD_BYTES."""
    if not head:
        return Sniffed("empty")
    for magic, name in _FORMATS:
        if head.startswith(magic):
            return Sniffed(name)
    where, tar = _TAR_MAGIC
    if head[where] == tar:
        return Sniffed("tar")
    for magic, description in _KNOWN:
        if head.startswith(magic):
            return Sniffed("unknown", description=description)
    encoding = encoding_of(head)
    text = text_of(head)
    if not text.strip():
        return Sniffed("empty", encoding)
    if encoding == "utf-8" and _is_binary(head):
        return Sniffed("unknown", description=_binary(head))
    start = text.lstrip()
    if start.startswith("["):
        return Sniffed("jsonl" if _first_line_is_json(start) else "json", encoding)
    if start.startswith("{"):
        return Sniffed("json" if _is_document(start) else "jsonl", encoding)
    delimiter = _delimiter(start)
    if delimiter is None:
        return Sniffed("text", encoding)
    return Sniffed("tsv" if delimiter == "\t" else "csv", encoding, delimiter)


def text_of(head: bytes) -> str:
    """The head as text, with whatever the cut left of its last character dropped."""
    encoding = encoding_of(head)
    for mark, name in BOMS:
        if name == encoding and head.startswith(mark):
            width = {"utf-16": 2, "utf-32": 4}.get(name, 1)
            return head[: len(head) // width * width].decode(encoding, "replace").lstrip("\ufeff")
    return head.decode("utf-8", "replace")


def _first_line_is_json(text: str) -> bool:
    """A complete JSON value on the first line with more lines below it."""
    first, _, rest = text.partition("\n")
    if not rest.strip():
        return False
    try:
        msgspec.json.decode(first)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _is_document(text: str) -> bool:
    """One object over many lines, or one that holds the list of rows."""
    if _first_line_is_json(text):
        return False
    first = text.split("\n", 1)[0].rstrip()
    spread = first == "{" or re.fullmatch(r'\{\s*"[^"]*"\s*:\s*[\[{]?', first)
    return bool(spread or _DOCUMENT.match(text))


def _is_binary(head: bytes) -> bool:
    """Control characters that no text has, in more than one of ten bytes."""
    controls = len(head) - len(head.translate(None, bytes(range(9)) + bytes(range(14, 32))))
    return controls * 10 > len(head)


def _binary(head: bytes) -> str:
    zeros = head.count(0)
    if zeros * 3 > len(head) and 0 in (head[1::2].count(0) - zeros, head[::2].count(0) - zeros):
        return "text in UTF-16 without its byte order mark"
    return "a binary file"


def _delimiter(text: str) -> str | None:
    """The delimiter of the header line: the candidate it holds most often outside of quotes."""
    header = re.sub(r'"(?:[^"]|"")*"', "", text.split("\n", 1)[0])
    counts = {candidate: header.count(candidate) for candidate in DELIMITERS}
    best = max(counts, key=lambda candidate: counts[candidate])
    return best if counts[best] else None
