"""A job's metric series as CSV or Arrow: the whole of it as a stream that is read page by page, or
few points of each name."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import Any, Literal

import pyarrow as pa

from api.context import Context
from models import metrics
from models.downsampled import Series
from models.metrics import Metric

Format = Literal["json", "csv", "arrow"]

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PAGE_POINTS = 5000


def chosen(format: Format | None, accept: str) -> Format:
    """The parameter goes before the header."""
    if format is not None:
        return format
    if ARROW in accept:
        return "arrow"
    return "csv" if CSV in accept else "json"


class Written:
    """Rows of one set of columns, in one of the formats; each part is given as it is made."""

    def __init__(self, format: Format, schema: pa.Schema) -> None:
        self._schema = schema
        if format == "arrow":
            self._bytes = io.BytesIO()
            self._arrow = pa.ipc.new_stream(self._bytes, schema)
        else:
            self._text = io.StringIO()
            self._csv = csv.writer(self._text, lineterminator="\n")
            self._csv.writerow(schema.names)
        self._is_arrow = format == "arrow"

    def rows(self, rows: Iterable[tuple[Any, ...]]) -> bytes:
        if not self._is_arrow:
            self._csv.writerows(rows)
            return self._taken()
        columns = list(zip(*rows, strict=True)) or [()] * len(self._schema)
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        self._arrow.write_batch(pa.record_batch(arrays, schema=self._schema))
        return self._taken()

    def end(self) -> bytes:
        if self._is_arrow:
            self._arrow.close()
        return self._taken()

    def _taken(self) -> bytes:
        made = self._bytes if self._is_arrow else self._text
        value = made.getvalue()
        made.seek(0)
        made.truncate()
        return value if isinstance(value, bytes) else value.encode()


async def whole(
    context: Context,
    job_id: str,
    format: Format,
    *,
    split: str | None,
    names: list[str] | None,
    after_step: int,
    limit: int | None,
) -> AsyncIterator[bytes]:
    """A line a point: step, split, then every name that occurs, empty where a point lacks it.

    Each page is read in a transaction of its own: a slow reader holds no connection.
    """
    if names is None:
        async with context.transaction() as db:
            names = await db(metrics.names, job_id, split)
    numbers = [(name, pa.float64()) for name in names]
    columns = pa.schema([("step", pa.int32()), ("split", pa.string()), *numbers])
    written, left = Written(format, columns), limit
    while left is None or left > 0:
        async with context.transaction() as db:
            most = PAGE_POINTS if left is None else min(PAGE_POINTS, left)
            page = await db(metrics.series, job_id, split=split, after_step=after_step, limit=most)
        yield written.rows(_row(point, names) for point in page.rows)
        if not page.has_more:
            break
        after_step = page.rows[-1].step
        left = None if left is None else left - len(page.rows)
    yield written.end()


def _row(point: Metric, names: list[str]) -> tuple[Any, ...]:
    return (point.step, point.split, *(point.values.get(name) for name in names))


async def few(series: list[Series], format: Format) -> AsyncIterator[bytes]:
    """A line a point: name, split, step, value."""
    types = {"name": pa.string(), "split": pa.string(), "step": pa.int32(), "value": pa.float64()}
    written = Written(format, pa.schema(list(types.items())))
    rows = (
        (one.name, one.split, step, value)
        for one in series
        for step, value in zip(one.steps.tolist(), one.values.tolist(), strict=True)
    )
    while part := list(islice(rows, PAGE_POINTS)):
        yield written.rows(part)
    yield written.end()
