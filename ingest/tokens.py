"""How long a prepared file's rows are in the tokens of a model, and what a limit would cut.

Counts the texts alone: what a chat template or special tokens add is the trainer's to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ingest.profile import spread
from ingest.tasks.base import TaskFormat

if TYPE_CHECKING:
    from tokenizers import Tokenizer

COUNTED_BYTES = 64 * 1024**2
"""Tokens are counted at a few MB a second."""
_NOT_READ = ("label", "source_language", "target_language", "speaker", "tools")


def token_lengths(
    prepared: Path, format: TaskFormat, tokenizer: Tokenizer, max_length: int | None = None
) -> dict[str, Any]:
    """`tokenizer` neither truncates nor pads. A row is all of its texts together.

    Gives `tokens` (a spread over rows) and, with `max_length`, `rows_beyond`, `tokens_beyond` and
    the places of the longest rows. Of a file beyond COUNTED_BYTES every so many batches are
    counted, and `rows_counted` says how many rows that are.
    """
    ids, lengths = [], []
    for places, rows in _rows(prepared, format):
        texts = [text for row in rows for text in row]
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        counts = iter([len(item.ids) for item in encoded])
        ids += places
        lengths += [sum(next(counts) for _ in row) for row in rows]
    found = np.array(lengths, np.int64)
    report: dict[str, Any] = {"tokens": spread(found), "rows_counted": len(found)}
    if max_length is not None:
        beyond = np.maximum(found - max_length, 0)
        longest = [int(row) for row in np.argsort(-found, kind="stable")[:10] if beyond[row]]
        report |= {
            "max_length": max_length,
            "rows_beyond": int((beyond > 0).sum()),
            "tokens_beyond": int(beyond.sum()),
            "longest": [{"id": ids[row], "tokens": int(found[row])} for row in longest],
        }
    return report


def _rows(prepared: Path, format: TaskFormat) -> Iterator[tuple[list[int], list[list[str]]]]:
    """For each batch the ids of its rows, and the texts of each row."""
    names = [name for name in (*format.inputs, *format.outputs) if name not in _NOT_READ]
    with pa.OSFile(str(prepared)) as source:
        reader = pa.ipc.open_file(source)
        step = 1 + prepared.stat().st_size // COUNTED_BYTES
        for index in range(0, reader.num_record_batches, step):
            batch = reader.get_batch(index)
            rows = [
                [text for name in names for text in _texts(row[name])]
                for row in batch.select(names).to_pylist()
            ]
            yield batch["id"].to_pylist(), rows


def _texts(value: Any) -> Iterator[str]:
    """Texts alone, in lists and in messages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict) and "role" in value:
        yield from (text for text in (value["content"], value["tool_calls"]) if text)
