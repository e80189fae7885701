"""One JSON document: a list of objects, or an object with such a list under a customary name.

Read element by element, so that only one of them stands in memory. Places are rows from 1: a
document on one line has no useful line numbers.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from ingest.kinds import type_name
from ingest.limits import Limits
from ingest.lines import utf8_chunks
from ingest.parsers import Batch, Batches
from ingest.parsers.jsonl import explain, repeated_key
from ingest.problems import Problems

LIST_NAMES = ("data", "rows", "examples", "items", "train")
_BLANK = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,:\[\]{}"]+')


def read(stream: BinaryIO, limits: Limits, problems: Problems) -> Batches:
    problems.unit = "row"
    batch, size = Batch(), 0
    for number, text in enumerate(_elements(_Text(stream, limits, problems)), start=1):
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError:
            code, message, hint = explain(text)
            problems.add(code, message, hint, place=number, sample=text)
            continue
        if not isinstance(value, dict):
            problems.add(
                "not_an_object",
                f"an object expected, found {type_name(value)}",
                "Each element of the list is one row.",
                place=number,
                sample=text,
            )
            continue
        key = repeated_key(text.encode(), value)
        if key is not None:
            problems.add(
                "duplicate_keys",
                f"the key `{key}` is there twice",
                "Only one of the two values could be read. Keep the right one.",
                place=number,
                sample=text,
            )
            continue
        batch.places.append(number)
        batch.rows.append(value)
        size += len(text)
        if len(batch.rows) == limits.batch_rows or size > limits.batch_bytes:
            yield batch
            batch, size = Batch(), 0
    yield batch


class _Text:
    """A window on the document's text that is filled as it is consumed."""

    def __init__(self, stream: BinaryIO, limits: Limits, problems: Problems) -> None:
        self.limits = limits
        self.problems = problems
        self.chunks = utf8_chunks(stream, problems)
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text = ""
        self.at = 0
        self.line = 1
        """The line where `text` begins."""
        self.offset = 0
        self.ended = False

    def fill(self) -> bool:
        """Read on, dropping what was consumed. False at the end of the file."""
        if self.ended:
            return False
        self.line += self.text.count("\n", 0, self.at)
        chunk = next(self.chunks, b"")
        pending = len(self.decoder.getstate()[0])
        try:
            more = self.decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            at = self.offset - pending + error.start
            raise self.problems.fatal(
                "invalid_encoding",
                f"not UTF-8 at offset {at} of the file's text",
                "Save the file as UTF-8.",
            ) from None
        self.offset += len(chunk)
        self.text = self.text[self.at :] + more
        self.at = 0
        self.ended = not chunk
        if len(self.text) > 2 * self.limits.max_line_bytes:
            raise self.problems.fatal(
                "line_too_long",
                f"an element is longer than {self.limits.max_line_bytes:,} characters",
                "Each element of the list is one row. Write one object a line (JSON Lines).",
            )
        return not self.ended

    def peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            blank = _BLANK.match(self.text, self.at)
            self.at = blank.end() if blank else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.fill():
                return ""

    def take(self, expected: str) -> None:
        if self.peek() != expected:
            raise self.broken(f"expecting {expected!r}")
        self.at += 1

    def scalar(self) -> str:
        """A string or number or name. It must lie within what a fill brings."""
        self.peek()
        if len(self.text) - self.at < 65536:
            self.fill()
        match = _SCALAR.match(self.text, self.at)
        if match is None:
            raise self.broken("expecting a name or a value")
        self.at = match.end()
        return match.group()

    def element(self) -> str:
        """The text of the JSON value that begins here."""
        self.peek()
        while True:
            try:
                _, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.pos > len(self.text) - 16 or error.msg.startswith("Unterminated")
                window = len(self.text) - self.at
                into = error.pos - self.at
                if not cut or not self.fill():
                    expecting = error.msg[0].lower() + error.msg[1:]
                    raise self.broken(expecting, self.at + into) from None
                # Doubling what is read keeps the cost of trying again linear.
                while len(self.text) < 2 * window and self.fill():
                    pass
            except RecursionError:
                raise self.problems.fatal(
                    "json_too_deep", "the JSON is nested too deeply", "Rows need no such depth."
                ) from None
            else:
                text, self.at = self.text[self.at : end], end
                return text

    def broken(self, expecting: str, at: int | None = None) -> Exception:
        at = self.at if at is None else at
        return self.problems.fatal(
            "invalid_json",
            f"not valid JSON ({expecting} on line {self.line + self.text.count(chr(10), 0, at)})",
            "Fix it there, or write one object a line (JSON Lines).",
            sample=self.text[at : at + 80],
        )


_DECODER = json.JSONDecoder()


def _elements(text: _Text) -> Iterator[str]:
    nested = text.peek() == "{"
    if nested:
        _seek_list(text)
    text.take("[")
    while text.peek() != "]":
        yield text.element()
        if text.peek() != "]":
            text.take(",")
            if text.peek() == "]":
                raise text.broken("expecting value")
    text.take("]")
    if not nested and text.peek():
        raise text.broken("nothing more after the list")


def _seek_list(text: _Text) -> None:
    """Stand before the list of rows in an object of customary form."""
    text.take("{")
    passed: list[str] = []
    while text.peek() == '"':
        name = text.scalar().strip('"')
        text.take(":")
        if name in LIST_NAMES and text.peek() == "[":
            return
        passed.append(name)
        if text.peek() in ("[", "{"):
            text.element()
        else:
            text.scalar()
        if text.peek() == ",":
            text.take(",")
    raise text.problems.fatal(
        "no_rows",
        f"the document has no list of rows; found {', '.join(passed[:20]) or 'nothing'}",
        f"Write one object a line, or a list, alone or under one of: {', '.join(LIST_NAMES)}.",
    )
