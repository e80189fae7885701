"""Texts that are valid and yet look wrong: of a wrong encoding, or answers that say nothing."""

from __future__ import annotations

from collections.abc import Iterable

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
            column = batch.column(name)
            found = texts_of(column)
            if found is not None and not pc.all(pc.string_is_ascii(found[0])).as_py():
                wrong = pc.fill_null(pc.match_substring_regex(found[0], GARBLED), False)
                garbled += ids.take(pc.unique(found[1].filter(wrong))).to_pylist()
            blank += ids.take(pc.unique(_blank_answers(column))).to_pylist()
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


def texts_of(column: pa.Array) -> tuple[pa.Array, pa.Array] | None:
    """The texts in a column of texts, of lists of texts or of messages, and for each the number of
    its row in the batch; None in another column."""
    rows = pa.array(range(len(column)), pa.int64())
    if pa.types.is_list(column.type):
        rows = pc.list_parent_indices(column)
        column = column.flatten()
        if _are_messages(column):
            column = column.field("content")
    return (column, rows) if pa.types.is_string(column.type) else None


def _are_messages(items: pa.Array) -> bool:
    return bool(pa.types.is_struct(items.type) and items.type.get_field_index("content") >= 0)


def _blank_answers(column: pa.Array) -> pa.Array:
    """The rows of a column of messages in which an assistant's has neither text nor calls."""
    messages = column.flatten() if pa.types.is_list(column.type) else column
    if not _are_messages(messages):
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
