"""JSON Lines: one object a line. Blank lines are allowed."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import msgspec

from ingest.kinds import type_name
from ingest.limits import Limits
from ingest.lines import Line, decode, read_blocks
from ingest.parsers import Batch, Batches, split
from ingest.problems import Problems
from ingest.typed import TypedLines


def read(
    stream: BinaryIO, limits: Limits, problems: Problems, typed: TypedLines | None = None
) -> Batches:
    """`typed` takes whole blocks once the reader of the batches has told it what to expect."""
    for block in read_blocks(stream, limits, problems):
        columns = typed.columns(block.first, block.content) if typed is not None else None
        if columns is not None:
            yield Batch(columns=columns)
            continue
        batch = Batch()
        for line in block.lines():
            row = _row(line, problems)
            if row is not None:
                batch.places.append(line[0])
                batch.rows.append(row)
        yield from split(batch, limits.batch_rows)


def _row(line: Line, problems: Problems) -> dict[str, Any] | None:
    number, _, content = line
    if not content or content.isspace():
        return None
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = decode(line, problems)
        if text is not None:
            code, message, hint = explain(text)
            problems.add(code, message, hint, place=number, sample=text)
        return None
    if not isinstance(value, dict):
        problems.add(
            "not_an_object",
            f"an object expected, found {type_name(value)}",
            'Each line is an object such as {"text": "…", "label": "…"}.',
            place=number,
            sample=content,
        )
        return None
    key = repeated_key(content, value)
    if key is not None:
        problems.add(
            "duplicate_keys",
            f"the key `{key}` is there twice",
            "Only one of the two values could be read. Keep the right one.",
            place=number,
            sample=content,
        )
        return None
    return value


def repeated_key(text: bytes, value: Any) -> str | None:
    """A key that one object of the text has twice. Decoders keep the last of its values."""
    if not _lost_keys(text, value):
        return None
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        found.extend(key for key in keys if keys.count(key) > 1)
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    return found[0] if found else None


def _lost_keys(text: bytes, value: Any) -> bool:
    """Whether the text may hold more keys than were decoded from it.

    Each key has a colon, and each colon in a string is there again when the value is encoded; so
    fewer of them afterwards are lost keys. A colon that was written as an escape leaves a doubt.
    """
    if b"\\u003" in text:
        return True
    return text.count(b":") != msgspec.json.encode(value).count(b":")


def explain(text: str) -> tuple[str, str, str]:
    """Code, message and hint for a JSON text that msgspec refuses.

    The standard library's parser says in clearer words where it goes wrong; what only it accepts
    (NaN, lone surrogates) is told apart here.
    """
    try:
        json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        expecting = error.msg[0].lower() + error.msg[1:]
        return (
            "invalid_json",
            f"not valid JSON ({expecting} at column {error.colno})",
            "Fix that line or leave it out.",
        )
    except RecursionError:
        return "json_too_deep", "the JSON is nested too deeply", "Rows need no such depth."
    except ValueError as error:
        return "invalid_json", f"not valid JSON ({error})", "Write null or leave the row out."
    return (
        "invalid_json",
        "not valid JSON (a number out of range, or half of a surrogate pair in an escape)",
        "Write the text as UTF-8 with json.dumps(…, ensure_ascii=False).",
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
