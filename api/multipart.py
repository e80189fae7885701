"""Multipart forms, read as they arrive: no part is ever held whole in memory or on disk.

Parts come in any order. A part's bytes are there while it is the current one; what its reader
leaves is skipped when the next part is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from core.errors import InvalidRequest, TooLarge

OVERHEAD_BYTES = 1024 * 1024
"""Boundaries, headers and fields that may come on top of the file itself."""
MAX_PARTS = 64
MAX_FIELD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Part:
    name: str
    filename: str | None
    chunks: AsyncIterator[bytes]

    async def text(self) -> str:
        """A field's value. Raises InvalidRequest where it is none."""
        value = bytearray()
        async for chunk in self.chunks:
            value += chunk
            if len(value) > MAX_FIELD_BYTES:
                raise InvalidRequest(
                    f"The form's field `{self.name}` is longer than {MAX_FIELD_BYTES} bytes.",
                    param=self.name,
                )
        return _decoded(bytes(value), self.name)


@dataclass(frozen=True)
class _Begin:
    name: str
    filename: str | None


class _End:
    """A part is over."""


_Event = _Begin | bytes | _End


async def parts(request: Request, limit: int) -> AsyncIterator[Part]:
    """The parts of a request's form, one after the other.

    Raises InvalidRequest for a broken form and TooLarge once it exceeds `limit` bytes.
    """
    events = _events(request, limit)
    count = 0
    async for event in events:
        if isinstance(event, _Begin):
            count += 1
            if count > MAX_PARTS:
                raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.")
            yield Part(event.name, event.filename, _data(events))


async def _data(events: AsyncIterator[_Event]) -> AsyncIterator[bytes]:
    async for event in events:
        if not isinstance(event, bytes):
            return
        yield event


async def _events(request: Request, limit: int) -> AsyncIterator[_Event]:
    parser = _Parser(_boundary(request))
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"The upload is larger than the limit of {limit} bytes.")
        for event in parser.feed(chunk):
            yield event
    if not parser.ended:
        raise _broken("it ends before its closing boundary, so the upload was cut off")


class _Parser:
    """python-multipart's callbacks, turned into events."""

    def __init__(self, boundary: bytes) -> None:
        self.ended = False
        self._events: deque[_Event] = deque()
        self._field, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._headers.clear,
                    "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._header,
                    "on_headers_finished": self._begin,
                    "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
                    "on_part_end": lambda: self._events.append(_End()),
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _broken(str(error)) from error

    def feed(self, chunk: bytes) -> list[_Event]:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _broken(str(error)) from error
        events = list(self._events)
        self._events.clear()
        return events

    def _header(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _begin(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise _broken('a part lacks its `Content-Disposition: form-data; name="…"`')
        name = _decoded(options[b"name"], "name")
        filename = options.get(b"filename")
        self._events.append(
            _Begin(name, None if filename is None else _decoded(filename, "filename"))
        )

    def _end(self) -> None:
        self.ended = True


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidRequest(
            "Send the file as a form: Content-Type multipart/form-data with a boundary. With curl: "
            "-F purpose=fine-tune -F file=@PATH",
            code="invalid_multipart",
        )
    return options[b"boundary"]


def _decoded(value: bytes, name: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The form's `{name}` is not UTF-8.", param=name) from error
    if "\0" in text:
        raise InvalidRequest(f"The form's `{name}` holds a NUL character.", param=name)
    return text


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The form cannot be read: {why}. Send the upload again.", code="invalid_multipart"
    )
