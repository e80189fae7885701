"""Lines of a text file as UTF-8 bytes, each with its number, in bounded memory.

The encoding is UTF-8 (with or without a byte order mark) or, by its mark, UTF-16. Anything else
is refused at the first byte that is not UTF-8, with its offset: guessing an encoding would train
on garbled text without a word.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ingest.limits import Limits
from ingest.problems import Problems

_CHUNK = 1024**2
_LF = 10
SAMPLE_BYTES = 512

BOMS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the UTF-16 mark, so it must be tried first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

Line = tuple[int, int, bytes]
"""Number from 1, byte offset in the UTF-8 stream, content without its LF."""


def encoding_of(head: bytes) -> str:
    """The encoding by its byte order mark; UTF-8 without one."""
    return next((name for mark, name in BOMS if head.startswith(mark)), "utf-8")


def utf8_chunks(stream: BinaryIO, problems: Problems, size: int = _CHUNK) -> Iterator[bytes]:
    """The stream's bytes as UTF-8 without a byte order mark. UTF-8 itself is passed unchecked."""
    head = stream.read(size)
    encoding = encoding_of(head)
    if encoding in ("utf-8", "utf-8-sig"):
        chunk = head.removeprefix(codecs.BOM_UTF8) if encoding == "utf-8-sig" else head
        while chunk:
            yield chunk
            chunk = stream.read(size)
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    chunk = head
    while True:
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
            converted = text.encode()
        except UnicodeError as error:
            at = offset - pending + getattr(error, "start", 0)
            raise problems.fatal(
                "invalid_encoding",
                f"the byte order mark says {encoding.upper()}, but byte {at} is not",
                "Save the file as UTF-8.",
            ) from None
        if converted:
            yield converted
        if not chunk:
            return
        offset += len(chunk)
        chunk = stream.read(size)


@dataclass(slots=True)
class Block:
    """Whole lines that stand together in the file, with what numbers and places them."""

    first: int
    """The number of the first line, from 1."""
    offset: int
    """Of the first byte in the UTF-8 stream."""
    content: bytes

    def lines(self) -> Iterator[Line]:
        number, offset = self.first, self.offset
        for line in self.content.split(b"\n"):
            yield number, offset, line
            number += 1
            offset += len(line) + 1


def read_blocks(stream: BinaryIO, limits: Limits, problems: Problems) -> Iterator[Block]:
    """The file in blocks of whole lines, without the last line's LF."""
    number, offset = 1, 0
    rest = b""

    def check(content: bytes) -> None:
        """The longest line of a block is rarely as long as the limit, and the block seldom."""
        if len(content) <= limits.max_line_bytes:
            return
        for index, line in enumerate(content.split(b"\n")):
            if len(line) > limits.max_line_bytes:
                raise problems.fatal(
                    "line_too_long",
                    f"the line is longer than {limits.max_line_bytes:,} bytes",
                    "Each row stands on a line of its own. Is a line break missing?",
                    place=number + index,
                    sample=line[:SAMPLE_BYTES],
                )

    for chunk in utf8_chunks(stream, problems, limits.block_bytes):
        end = chunk.rfind(b"\n")
        if end < 0:
            rest += chunk
            check(rest)
            continue
        content = rest + chunk[:end]
        rest = chunk[end + 1 :]
        check(content)
        yield Block(number, offset, content)
        number += int(np.count_nonzero(np.frombuffer(content, np.uint8) == _LF)) + 1
        offset += len(content) + 1
    check(rest)
    if rest:
        yield Block(number, offset, rest)


def read_lines(stream: BinaryIO, limits: Limits, problems: Problems) -> Iterator[Line]:
    """Every line, blank ones included. Lines end with LF; the CR of CR LF is left to the format."""
    for block in read_blocks(stream, limits, problems):
        yield from block.lines()


def decode(line: Line, problems: Problems) -> str | None:
    """The line as text; None, and a problem, if it is not UTF-8 or holds a NUL."""
    number, offset, content = line
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        problems.add(
            "invalid_encoding",
            f"not UTF-8: byte 0x{content[error.start]:02x} "
            f"at offset {offset + error.start} of the file's text",
            "Save the file as UTF-8.",
            place=number,
            sample=content[:SAMPLE_BYTES],
        )
        return None
    if "\x00" in text:
        problems.add(
            "nul_byte",
            f"a NUL character at column {text.index(chr(0)) + 1}",
            "Text has none: the file may be cut off, or not be text.",
            place=number,
            sample=text,
        )
        return None
    return text
