"""Plain text: each line that is not blank is one row with the column `text`."""

from __future__ import annotations

from typing import BinaryIO

from ingest.limits import Limits
from ingest.lines import decode, read_lines
from ingest.parsers import Batch, Batches
from ingest.problems import Problems


def read(stream: BinaryIO, limits: Limits, problems: Problems) -> Batches:
    batch, size = Batch(), 0
    for line in read_lines(stream, limits, problems):
        text = decode(line, problems)
        if text is None or not text.strip():
            continue
        batch.places.append(line[0])
        batch.rows.append({"text": text.removesuffix("\r")})
        size += len(line[2])
        if len(batch.rows) == limits.batch_rows or size > limits.batch_bytes:
            yield batch
            batch, size = Batch(), 0
    yield batch
