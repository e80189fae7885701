"""What a prepared file holds: sizes, lengths, scripts and a few rows to look at."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.problems import shorten

SAMPLES = 10
SCRIPT_ROWS = 300
SCRIPT_CHARACTERS = 200
PERCENTILES = (5, 50, 95, 99)

Numbers = npt.NDArray[Any]


def batches_of(prepared: Path) -> Iterator[pa.RecordBatch]:
    """The file's batches, each read when it is wanted.

    What of a mapped file was read counts as memory, so only files of images and recordings are
    mapped, since nobody reads those here.
    """
    with pa.memory_map(str(prepared)) as mapped, pa.OSFile(str(prepared)) as file:
        reader = pa.ipc.open_file(mapped)
        if not any(pa.types.is_binary(column.type) for column in reader.schema):
            reader = pa.ipc.open_file(file)
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)


def profile(prepared: Path, rows: int) -> dict[str, Any]:
    """`rows` is how many the file has."""
    kinds: dict[str, dict[str, list[Numbers]]] = {"characters": {}, "items": {}, "numbers": {}}
    rates: Counter[int] = Counter()
    scripts = _Scripts()
    samples: list[dict[str, Any]] = []
    for batch in _and_samples(batches_of(prepared), rows, samples):
        for column in batch.schema:
            measured = _measured(column, batch.column(column.name).drop_null())
            if measured is not None:
                kind, values = measured
                kinds[kind].setdefault(column.name, []).append(np.asarray(values))
        if "sampling_rate" in batch.schema.names:
            rates.update(batch["sampling_rate"].to_pylist())
        scripts.add(batch)
    found: dict[str, Any] = {"rows": rows, "bytes": prepared.stat().st_size}
    for kind, columns in kinds.items():
        spreads = {name: spread(np.concatenate(parts)) for name, parts in columns.items()}
        found[kind] = {name: told for name, told in spreads.items() if told}
    if rates:
        found["sampling_rates"] = {str(rate): count for rate, count in sorted(rates.items())}
    found["scripts"] = scripts.shares()
    found["samples"] = [{name: _shown(value) for name, value in row.items()} for row in samples]
    return found


def _measured(column: pa.Field, values: pa.Array) -> tuple[str, pa.Array] | None:
    if pa.types.is_string(column.type):
        return "characters", pc.utf8_length(values)
    if pa.types.is_list(column.type):
        return "items", pc.list_value_length(values)
    if column.name not in ("id", "sampling_rate") and _is_number(column.type):
        return "numbers", values
    return None


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type))


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


class _Scripts:
    """Shares of the scripts that letters are of, in the first rows: LATIN, CYRILLIC, CJK …"""

    def __init__(self) -> None:
        self._characters: Counter[str] = Counter()
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        if self._rows >= SCRIPT_ROWS:
            return
        for column in batch.columns:
            if pa.types.is_string(column.type):
                for text in column.slice(0, SCRIPT_ROWS - self._rows).to_pylist():
                    self._characters.update((text or "")[:SCRIPT_CHARACTERS])
        self._rows += batch.num_rows

    def shares(self) -> dict[str, float]:
        letters: Counter[str] = Counter()
        for character, count in self._characters.items():
            if character.isalpha():
                letters[_script(character)] += count
        total = letters.total() or 1
        return {name: round(count / total, 4) for name, count in letters.most_common(10)}


def _script(character: str) -> str:
    """The first word of a letter's Unicode name is its script."""
    if character.isascii():
        return "LATIN"
    return unicodedata.name(character, "OTHER").split(" ", 1)[0]


def _and_samples(
    batches: Iterable[pa.RecordBatch], rows: int, samples: list[dict[str, Any]]
) -> Iterator[pa.RecordBatch]:
    """The batches as they are; SAMPLES rows from all over the file go to `samples`."""
    wanted = sorted({round(index * (rows - 1) / max(1, SAMPLES - 1)) for index in range(SAMPLES)})
    start = 0
    for batch in batches:
        for index in wanted:
            if start <= index < start + batch.num_rows:
                samples += batch.slice(index - start, 1).to_pylist()
        start += batch.num_rows
        yield batch


def sampled(prepared: Path, rows: int) -> list[dict[str, Any]]:
    """SAMPLES rows from all over the file."""
    samples: list[dict[str, Any]] = []
    for _ in _and_samples(batches_of(prepared), rows, samples):
        pass
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
