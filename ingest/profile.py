"""What a prepared file holds: sizes, lengths, scripts and a few rows to look at."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.problems import shorten
from ingest.tasks.base import TaskFormat

SAMPLES = 10
SCRIPT_ROWS = 300
SCRIPT_CHARACTERS = 200
PERCENTILES = (5, 50, 95, 99)

Numbers = npt.NDArray[Any]


def profile(prepared: Path, format: TaskFormat) -> dict[str, Any]:
    with pa.memory_map(str(prepared)) as source:
        reader = pa.ipc.open_file(source)
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        rows = sum(batch.num_rows for batch in batches)
        found: dict[str, Any] = {"rows": rows, "bytes": prepared.stat().st_size}
        characters, items, numbers = {}, {}, {}
        for column in reader.schema:
            parts = [batch.column(column.name).drop_null() for batch in batches]
            if pa.types.is_string(column.type):
                characters[column.name] = _of_parts([pc.utf8_length(part) for part in parts])
            elif pa.types.is_list(column.type):
                items[column.name] = _of_parts([pc.list_value_length(part) for part in parts])
            elif column.name not in ("id", "sampling_rate") and _is_number(column.type):
                numbers[column.name] = _of_parts(parts)
        for kind, spreads in (("characters", characters), ("items", items), ("numbers", numbers)):
            found[kind] = {name: spread for name, spread in spreads.items() if spread}
        if "sampling_rate" in reader.schema.names:
            rates = Counter(
                rate for batch in batches for rate in batch["sampling_rate"].to_pylist()
            )
            found["sampling_rates"] = {str(rate): count for rate, count in sorted(rates.items())}
        found["scripts"] = _scripts(batches)
        found["samples"] = [
            {name: _shown(value) for name, value in row.items()} for row in sampled(batches, rows)
        ]
    return found


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type))


def _of_parts(parts: list[pa.Array]) -> dict[str, float] | None:
    return spread(np.concatenate([np.asarray(part) for part in parts]))


def spread(values: Numbers) -> dict[str, float] | None:
    """Minimum, percentiles, maximum, mean and sum; None where there are no values."""
    if not len(values):
        return None
    cuts = zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)
    return {
        "min": float(values.min()),
        **{f"p{percent}": round(float(cut), 3) for percent, cut in cuts},
        "max": float(values.max()),
        "mean": round(float(values.mean()), 3),
        "sum": float(values.sum()),
    }


def _scripts(batches: list[pa.RecordBatch]) -> dict[str, float]:
    """Shares of the scripts that letters are of, in the first rows: LATIN, CYRILLIC, CJK …"""
    characters: Counter[str] = Counter()
    seen = 0
    for batch in batches:
        texts = [column for column in batch.columns if pa.types.is_string(column.type)]
        for column in texts:
            for text in column.slice(0, SCRIPT_ROWS - seen).to_pylist():
                characters.update((text or "")[:SCRIPT_CHARACTERS])
        seen += batch.num_rows
        if seen >= SCRIPT_ROWS:
            break
    letters: Counter[str] = Counter()
    for character, count in characters.items():
        if character.isalpha():
            letters[_script(character)] += count
    total = letters.total() or 1
    return {name: round(count / total, 4) for name, count in letters.most_common(10)}


def _script(character: str) -> str:
    """The first word of a letter's Unicode name is its script."""
    if character.isascii():
        return "LATIN"
    return unicodedata.name(character, "OTHER").split(" ", 1)[0]


def sampled(batches: list[pa.RecordBatch], rows: int) -> list[dict[str, Any]]:
    """SAMPLES rows from all over the file."""
    wanted = sorted({round(index * (rows - 1) / max(1, SAMPLES - 1)) for index in range(SAMPLES)})
    samples = []
    start = 0
    for batch in batches:
        for index in wanted:
            if start <= index < start + batch.num_rows:
                samples += batch.slice(index - start, 1).to_pylist()
        start += batch.num_rows
    return samples


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, str):
        return shorten(value)
    if isinstance(value, list):
        return [_shown(item) for item in value[:20]]
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    return value
