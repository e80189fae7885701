"""Parquet, batch by batch. Places are rows from 1.

Class names that the `datasets` library keeps in the schema's metadata are put in the place of
their numbers, so that `ner_tags` and `label` are readable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.limits import Limits
from ingest.parsers import Batch, Batches
from ingest.problems import Problems


def read(stream: BinaryIO, limits: Limits, problems: Problems) -> Batches:
    problems.unit = "row"
    try:
        file = pq.ParquetFile(stream)
        schema = file.schema_arrow
        if len(schema.names) > limits.max_columns:
            raise problems.fatal(
                "too_many_columns",
                f"{len(schema.names):,} columns, and at most {limits.max_columns:,} are read",
                "Keep only the columns that the task needs.",
            )
        named = _class_names(schema)
        place = 1
        for part in file.iter_batches(batch_size=limits.parquet_batch_rows):
            rows = part.to_pylist()
            for column, rename in named.items():
                for row in rows:
                    row[column] = rename(row[column])
            yield Batch(list(range(place, place + len(rows))), rows)
            place += len(rows)
    except MemoryError:
        raise  # Arrow's own is an ArrowException too, but not the file's fault alone
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
        raise problems.fatal(
            "invalid_parquet",
            f"the file cannot be read as Parquet ({_first_line(error)})",
            "Was the upload complete? Write the file again.",
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _class_names(schema: pa.Schema) -> dict[str, Callable[[Any], Any]]:
    """For each column of class numbers, what turns them into names."""
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return {}
    try:
        features = msgspec.json.decode(raw)["info"]["features"]
        found = {column: _names(feature) for column, feature in features.items()}
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return {}  # metadata of another make; the numbers stay numbers
    return {
        column: _renamer(names)
        for column, names in found.items()
        if names is not None and column in schema.names
    }


def _names(feature: Any) -> list[str] | None:
    """The names of a ClassLabel, or of a list of them."""
    if isinstance(feature, list):
        feature = feature[0]
    if isinstance(feature, dict) and feature.get("_type") in ("Sequence", "List", "LargeList"):
        feature = feature.get("feature")
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names = feature["names"]
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    return names if all(isinstance(name, str) for name in names) else None


def _renamer(names: list[str]) -> Callable[[Any], Any]:
    def rename(value: Any) -> Any:
        if isinstance(value, list):
            return [rename(item) for item in value]
        if isinstance(value, int) and 0 <= value < len(names):
            return names[value]
        return value

    return rename
