"""Files beside a table of them: `metadata.csv`, `.tsv`, `.jsonl`, or Common Voice's one TSV."""

from __future__ import annotations

from pathlib import PurePosixPath

from ingest import sniff
from ingest.archives import Archive
from ingest.layouts import resolve
from ingest.limits import Limits
from ingest.parsers import Batch, Batches, delimited, jsonl
from ingest.problems import Problems

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
NAME_COLUMNS = ("file_name", "filename", "file", "path", "image", "audio", "mask_file_name", "mask")


def fits(archive: Archive) -> bool:
    return bool(_tables(archive))


def _tables(archive: Archive) -> list[str]:
    """The tables there are; `metadata.*` alone if it is among them."""
    found = [name for name in archive.names if PurePosixPath(name).suffix.lower() in _TABLES]
    return [name for name in found if PurePosixPath(name).stem.lower() == "metadata"] or found


def read(archive: Archive, limits: Limits, problems: Problems) -> Batches:
    tables = _tables(archive)
    if len(tables) > 1:
        raise problems.fatal(
            "several_tables",
            f"the archive has {len(tables)} tables: {', '.join(sorted(tables)[:10])}",
            "Keep one, or name the right one metadata.csv.",
        )
    (table,) = tables
    with archive.open(table) as stream:
        sniffed = sniff.sniff(stream.read(sniff.HEAD_BYTES))
    # Each row brings a file with it, so a batch has few of them.
    few = limits.with_batch_rows(limits.media_batch_rows)
    with archive.open(table) as stream:
        if sniffed.format == "jsonl":
            batches = jsonl.read(stream, few, problems)
        elif sniffed.format in ("csv", "tsv"):
            batches = delimited.read(stream, few, problems, delimiter=sniffed.delimiter or ",")
        else:
            raise problems.fatal(
                "unsupported_format",
                f"the table is {sniffed.description or sniffed.format}",
                "Write it as CSV with a header line, or as JSON Lines.",
                entry=table,
            )
        for batch in batches:
            for row in batch.rows:
                for column in NAME_COLUMNS:
                    if isinstance(row.get(column), str):
                        row[column] = resolve(archive, row[column], table)
            yield Batch(batch.places, batch.rows, [table] * len(batch.rows))
