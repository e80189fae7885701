"""JSON Lines: one object a line. Blank lines are allowed."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import msgspec

from ingest.kinds import type_name
from ingest.limits import Limits
from ingest.lines import Line, decode, read_lines
from ingest.parsers import Batch, Batches
from ingest.problems import Problems


def read(stream: BinaryIO, limits: Limits, problems: Problems) -> Batches:
    batch, size = Batch(), 0
    for line in read_lines(stream, limits, problems):
        row = _row(line, problems)
        if row is None:
            continue
        batch.places.append(line[0])
        batch.rows.append(row)
        size += len(line[2])
        if len(batch.rows) == limits.batch_rows or size > limits.batch_bytes:
            yield batch
            batch, size = Batch(), 0
    yield batch


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


def repeated_key(text: bytes, value: dict[str, Any]) -> str | None:
    """A key that one object of the text has twice.

    Decoders keep the last of two values. Counting what ends a key is enough to clear most rows;
    the others are decoded again, slowly, to be sure.
    """
    if text.count(b'":') + text.count(b'" :') == _pairs(value):
        return None
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        found.extend(key for key in keys if keys.count(key) > 1)
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    return found[0] if found else None


def _pairs(value: Any) -> int:
    """Keys with a value, at all depths."""
    if isinstance(value, dict):
        return len(value) + sum(map(_pairs, value.values()))
    if isinstance(value, list):
        return sum(map(_pairs, value))
    return 0


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
