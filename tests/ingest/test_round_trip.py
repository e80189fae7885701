"""Random valid datasets, written in each format by its own library, are read back as they were."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import BadData
from ingest.limits import Limits
from tests.ingest.make import parquet, tarred, zipped, zstd
from tests.ingest.reading import ingest

Rows = list[dict[str, Any]]

CHARACTERS = st.characters(exclude_categories=("Cs", "Cc"), include_characters="\t\n\r")
TEXTS = st.text(CHARACTERS, min_size=1, max_size=30).filter(lambda text: not text.isspace())
LINES = TEXTS.filter(lambda text: not set("\n\r") & set(text))
LABELS = st.one_of(TEXTS, st.integers(-5, 5))
ROWS = st.lists(
    st.fixed_dictionaries({"text": TEXTS, "label": LABELS}), min_size=2, max_size=12
).filter(lambda rows: len({str(row["label"]) for row in rows}) > 1)
WORDS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=8).filter(
    lambda word: word not in ("#", "-DOCSTART-")
)
TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC"])

few = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def as_lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_ascii_lines(rows: Rows) -> bytes:
    return "\r\n".join(json.dumps(row) for row in rows).encode()


def as_list(rows: Rows) -> bytes:
    return json.dumps(rows, indent=1, ensure_ascii=False).encode()


def as_nested(rows: Rows) -> bytes:
    return json.dumps({"version": 1, "data": rows, "end": True}).encode()


def delimited(delimiter: str, end: str) -> Callable[[Rows], bytes]:
    def write(rows: Rows) -> bytes:
        text = io.StringIO()
        # The writer leaves a lone CR bare unless it ends lines with one, so all is quoted.
        writer = csv.DictWriter(
            text, rows[0].keys(), delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL
        )
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    return write


def as_parquet(rows: Rows) -> bytes:
    return parquet([row | {"label": str(row["label"])} for row in rows])


FORMATS: dict[str, Callable[[Rows], bytes]] = {
    "jsonl": as_lines,
    "jsonl, ASCII, CR LF": as_ascii_lines,
    "json list": as_list,
    "json object": as_nested,
    "csv": delimited(",", "\r\n"),
    "csv, LF": delimited(",", "\n"),
    "tsv": delimited("\t", "\n"),
    "semicolons": delimited(";", "\r\n"),
    "parquet": as_parquet,
    "utf-8 with mark": lambda rows: b"\xef\xbb\xbf" + as_lines(rows),
    "utf-16": lambda rows: as_lines(rows).decode().encode("utf-16"),
    "utf-32 csv": lambda rows: delimited(",", "\n")(rows).decode().encode("utf-32"),
    "gzip": lambda rows: gzip.compress(as_lines(rows)),
    "zstd": lambda rows: zstd(delimited(",", "\n")(rows)),
    "zip": lambda rows: zipped({"a/b.jsonl": as_lines(rows), "README.md": "x"}),
    "tar.gz": lambda rows: tarred({"b.parquet": as_parquet(rows)}, "w:gz"),
}


def read_back(content: bytes, **options: Any) -> Rows:
    with tempfile.TemporaryDirectory() as folder:
        return ingest(Path(folder), content, **options)[1]


@pytest.mark.parametrize("name", FORMATS)
@few
@given(rows=ROWS, batch=st.integers(1, 5))
def test_rows_come_back(name: str, rows: Rows, batch: int) -> None:
    got = read_back(FORMATS[name](rows), limits=Limits(batch_rows=batch))
    assert [(row["text"], row["label"]) for row in got] == [
        (row["text"], str(row["label"])) for row in rows
    ]


@few
@given(texts=st.lists(LINES, min_size=1, max_size=12), end=st.sampled_from(["\n", "\r\n"]))
def test_plain_lines_come_back(texts: list[str], end: str) -> None:
    # A first line that a header, JSON or a mark could begin is told from prose by its look alone.
    content = "Prose\n" + end.join(texts)
    assert [row["text"] for row in read_back(content.encode(), task="fill-mask")][1:] == texts


@few
@given(
    sentences=st.lists(
        st.lists(st.tuples(WORDS, TAGS), min_size=1, max_size=6), min_size=1, max_size=6
    ),
    gap=st.sampled_from([" ", "\t", " X Y "]),
)
def test_sentences_come_back(sentences: list[list[tuple[str, str]]], gap: str) -> None:
    sentences = [[("Known", "B-ORG"), ("word", "O")], *sentences]
    content = "\n\n".join(
        "\n".join(f"{word}{gap}{tag}" for word, tag in sentence) for sentence in sentences
    )
    got = read_back(content.encode(), task="token-classification")
    assert [list(zip(row["tokens"], row["tags"], strict=True)) for row in got] == sentences


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(CHARACTERS)}
    ),
    max_size=5,
).map(lambda messages: [*messages, {"role": "assistant", "content": "end"}])


@few
@given(
    chats=st.lists(MESSAGES, min_size=1, max_size=6), name=st.sampled_from(["jsonl", "json list"])
)
def test_chats_come_back(chats: list[list[dict[str, str]]], name: str) -> None:
    got = read_back(FORMATS[name]([{"messages": chat} for chat in chats]), task="text-generation")
    assert [
        [{key: item[key] for key in ("role", "content")} for item in row["messages"]] for row in got
    ] == chats


ANY_TASK = st.sampled_from(
    ["text-classification", "fill-mask", "image-classification", "question-answering"]
)
MAGIC = st.sampled_from(
    [b"", b"PK\x03\x04", b"PAR1", b"\x1f\x8b", b"{", b"[", b"\xff\xfe", b"a,b\n"]
)


@few
@given(magic=MAGIC, rest=st.binary(max_size=400), task=ANY_TASK)
def test_no_bytes_do_more_than_be_refused(magic: bytes, rest: bytes, task: str) -> None:
    """Any bytes give a dataset or an error of the user's, never another exception."""
    with suppress(BadData):
        read_back(magic + rest, task=task)
