"""From a file to batches of rows: unpack, find the data, choose the parser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ingest import layouts, sniff
from ingest.archives import Archive, unpack
from ingest.limits import Limits
from ingest.parsers import (
    Batch,
    Batches,
    conll,
    delimited,
    json_document,
    jsonl,
    parquet,
    plain_text,
)
from ingest.problems import Problems
from ingest.tasks.base import Modality, TaskFormat
from ingest.typed import TypedLines

TABLES = "JSON Lines, a JSON list, CSV or TSV with a header line, or Parquet"
_PASSED_OVER = ("readme", "license", "dataset_info", "dataset_infos")


@dataclass(frozen=True)
class Opened:
    format: str
    """What the data proved to be, such as `csv` or `zip/coco`."""
    encoding: str | None
    batches: Batches
    archive: Archive | None = None


def unpacked(source: Path, scratch: Path, limits: Limits, problems: Problems) -> tuple[Path, str]:
    """The file itself, or what a gzip or zstd file holds, below `scratch`; the prefix that names
    the compression in the format."""
    packing = _sniff(source).format
    if packing not in ("gzip", "zstd"):
        return source, ""
    plain = scratch / "unpacked"
    unpack(source, packing, plain, limits, problems)
    return plain, f"{packing}/"


@contextmanager
def open_source(
    source: Path,
    scratch: Path,
    format: TaskFormat,
    limits: Limits,
    problems: Problems,
    mapped: frozenset[str] = frozenset(),
    typed: TypedLines | None = None,
) -> Iterator[Opened]:
    """The rows of `source`, which is not compressed but may be an archive.

    Entries are copied below `scratch`, a folder the caller deletes. `mapped` are the file's columns
    that the user named; `typed` is for JSON Lines.
    """
    with ExitStack() as stack:
        yield _open(source, scratch, format, limits, problems, mapped, typed, stack)


def first_rows(batches: Batches, problems: Problems) -> Batch:
    """The first batch that has rows. Raises BadData if there is none."""
    first = next((batch for batch in batches if batch.rows), None)
    if first is None:
        if problems.counts:
            raise problems.error()
        raise problems.fatal("no_rows", "the file has no rows", "A header alone trains nothing.")
    return first


def _open(
    source: Path,
    scratch: Path,
    format: TaskFormat,
    limits: Limits,
    problems: Problems,
    mapped: frozenset[str],
    typed: TypedLines | None,
    stack: ExitStack,
) -> Opened:
    prefix = ""
    sniffed = _sniff(source)
    if sniffed.format in ("zip", "tar"):
        archive = stack.enter_context(Archive(source, sniffed.format, limits, problems))
        if format.layouts:
            layout = layouts.choose(archive, format, problems)
            batches = layouts.read(archive, layout, limits, problems)
            return Opened(f"{sniffed.format}/{layout}", None, batches, archive)
        prefix = f"{sniffed.format}/"
        source = _data_entry(archive, scratch, problems)
        sniffed = _sniff(source)
    if format.modality != "text" and sniffed.format not in ("parquet", "empty"):
        raise problems.fatal(
            "unsupported_format",
            f"this is {sniffed.description or _named(sniffed.format)}, "
            f"which {format.name} does not take",
            _expected(format),
        )
    stream = stack.enter_context(source.open("rb"))
    if format.layouts:
        limits = limits.with_batch_rows(limits.media_batch_rows)
    name, batches = _parse(stream, sniffed, format, limits, problems, mapped, typed)
    return Opened(prefix + name, sniffed.encoding, batches)


def _sniff(source: Path) -> sniff.Sniffed:
    with source.open("rb") as stream:
        return sniff.sniff(stream.read(sniff.HEAD_BYTES))


def _parse(
    stream: BinaryIO,
    sniffed: sniff.Sniffed,
    format: TaskFormat,
    limits: Limits,
    problems: Problems,
    mapped: frozenset[str],
    typed: TypedLines | None,
) -> tuple[str, Batches]:
    match sniffed.format:
        case "empty":
            raise problems.fatal("empty_file", "the file is empty", "Was the upload complete?")
        case "jsonl":
            return "jsonl", jsonl.read(stream, limits, problems, typed)
        case "json":
            return "json", json_document.read(stream, limits, problems)
        case "parquet":
            return "parquet", parquet.read(stream, limits, problems)
        case "csv" | "tsv" | "text":
            head = sniff.text_of(stream.read(sniff.HEAD_BYTES))
            stream.seek(0)
            if format.plain_text == "conll" and conll.fits(head):
                return "conll", conll.read(stream, limits, problems)
            if format.plain_text == "lines" and not _has_header(head, sniffed, format, mapped):
                return "text", plain_text.read(stream, limits, problems)
            delimiter = sniffed.delimiter or ","
            name = "csv" if sniffed.format == "text" else sniffed.format
            return name, delimited.read(stream, limits, problems, delimiter=delimiter)
        case _:
            what = sniffed.description or f"a {sniffed.format} file inside of another"
            raise problems.fatal("unsupported_format", f"this is {what}", _expected(format))


def _has_header(
    head: str, sniffed: sniff.Sniffed, format: TaskFormat, mapped: frozenset[str]
) -> bool:
    """Whether the first line names a column that the task knows: prose has commas too."""
    first = head.lstrip().split("\n", 1)[0]
    fields = {field.strip().strip('"') for field in first.split(sniffed.delimiter or "\n")}
    if fields & mapped:
        return True
    fields = {field.lower() for field in fields}
    return any(
        column.name in fields or fields & set(column.aliases)
        for shape in format.shapes
        for column in shape.columns
    )


def _data_entry(archive: Archive, scratch: Path, problems: Problems) -> Path:
    """The one data file in an archive, copied out so that it can be read at will."""
    names = [name for name in archive.names if PurePosixPath(name).stem.lower() not in _PASSED_OVER]
    if "[Content_Types].xml" in names:
        raise problems.fatal(
            "unsupported_format", "this is an Excel or Word file", "Save the table as CSV."
        )
    if len(names) != 1:
        raise problems.fatal(
            "several_files" if names else "no_rows",
            f"the archive holds {len(names)} files: {', '.join(sorted(names)[:10])}"
            if names
            else "the archive holds no data file",
            "Pack one data file. Training and validation data are files of their own.",
        )
    (name,) = names
    problems.file = f"{problems.file}/{name}"
    to = scratch / "entry"
    with archive.open(name) as packed, to.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1024**2)
    return to


def _named(format: str) -> str:
    return "plain text" if format == "text" else f"a {format} file"


def _expected(format: TaskFormat) -> str:
    media: dict[Modality, str] = {"text": f"Upload {TABLES}, in UTF-8 or UTF-16."}
    return media.get(format.modality, f"Upload {'; or '.join(format.formats)}.")
