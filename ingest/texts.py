"""Texts that are valid and yet look wrong: of a wrong encoding, or answers that say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from ingest.findings import SHOWN, Finding

GARBLED = "\ufffd|[ÂÃ][\u0080-\u00bf]|â€|ï¿½"
"""The replacement character, and what UTF-8 looks like that was read as Latin-1 or Windows-1252."""


def odd_texts(
    batches: Iterable[pa.RecordBatch], columns: Iterable[str], unit: str
) -> list[Finding]:
    """`columns` are those that may hold texts, lists of them, or messages."""
    garbled: list[int] = []
    blank: list[int] = []
    names = list(columns)
    for batch in batches:
        ids = batch.column("id")
        for name in names:
            for texts, rows in _texts(batch.column(name)):
                if not pc.all(pc.string_is_ascii(texts)).as_py():
                    wrong = pc.fill_null(pc.match_substring_regex(texts, GARBLED), False)
                    garbled += ids.take(pc.unique(rows.filter(wrong))).to_pylist()
            rows = _blank_answers(batch.column(name))
            blank += ids.take(pc.unique(rows)).to_pylist()
    return [
        *_finding(
            "garbled_text",
            garbled,
            unit,
            "rows hold characters of a wrong encoding, such as `Ã©` or `\ufffd`",
            "Read the source in its own encoding and write it as UTF-8.",
        ),
        *_finding(
            "blank_answers",
            blank,
            unit,
            "rows have an assistant message without a visible character",
            "The model learns to say nothing there. Leave them out if that is not meant.",
        ),
    ]


def _texts(column: pa.Array) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Texts, each with the number of its row."""
    rows = pa.array(range(len(column)), pa.int64())
    if pa.types.is_list(column.type):
        rows = pc.list_parent_indices(column)
        column = column.flatten()
        if pa.types.is_struct(column.type) and column.type.get_field_index("content") >= 0:
            column = column.field("content")
    if pa.types.is_string(column.type):
        yield column, rows


def _blank_answers(column: pa.Array) -> pa.Array:
    """The rows of a column of messages in which an assistant's has neither text nor calls."""
    if not pa.types.is_list(column.type):
        return pa.array([], pa.int64())
    messages = column.flatten()
    if not pa.types.is_struct(messages.type) or messages.type.get_field_index("content") < 0:
        return pa.array([], pa.int64())
    content = pc.fill_null(messages.field("content"), "")
    silent = pc.and_(
        pc.or_(pc.equal(content, ""), pc.utf8_is_space(content)),
        pc.and_(
            pc.equal(messages.field("role"), "assistant"),
            pc.is_null(messages.field("tool_calls")),
        ),
    )
    return pc.list_parent_indices(column).filter(silent)


def _finding(code: str, rows: list[int], unit: str, message: str, hint: str) -> list[Finding]:
    if not rows:
        return []
    rows = sorted(set(rows))
    return [
        Finding(
            code, f"{len(rows):,} {message}", hint, len(rows), [{unit: n} for n in rows[:SHOWN]]
        )
    ]
