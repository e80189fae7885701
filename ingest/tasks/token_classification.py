"""Token classification: one tag a word (named entities, parts of speech)."""

from __future__ import annotations

import re
from itertools import pairwise

import pyarrow as pa

from ingest import kinds
from ingest.problems import BadValue
from ingest.tasks.base import ID, Column, Row, Shape, TaskFormat

_WORD = re.compile(r"\w+|[^\w\s]")


def _same_length(row: Row) -> Row:
    words, tags = len(row["tokens"]), len(row["tags"])
    if words != tags:
        raise BadValue(
            "length_mismatch",
            f"{words} tokens but {tags} tags",
            "Each token has one tag; O where nothing applies.",
            column="tags",
        )
    return row


def _from_spans(row: Row) -> Row:
    """Words of the text, tagged B- and I- by the character spans they lie in.

    Words are split where a span begins or ends, so that no span is widened.
    """
    text: str = row["text"]
    spans = sorted(_span(item, text) for item in row["spans"])
    for (_, end, _), (start, _, _) in pairwise(spans):
        if start < end:
            raise BadValue(
                "overlapping_spans",
                f"two spans hold character {start}",
                "A word has one tag; keep one of the spans.",
                column="spans",
            )
    tokens: list[str] = []
    tags: list[str] = []
    position = 0
    for start, end, name in [*spans, (len(text), len(text), "")]:
        outside = _WORD.findall(text, position, start)
        tokens += outside
        tags += ["O"] * len(outside)
        inside = _WORD.findall(text, start, end)
        tokens += inside
        tags += [f"{'I' if index else 'B'}-{name}" for index in range(len(inside))]
        position = end
    return {"tokens": tokens, "tags": tags}


def _span(item: object, text: str) -> tuple[int, int, str]:
    if not isinstance(item, dict) or "label" not in item:
        raise BadValue("invalid_span", "a span is not {start, end, label}", column="spans")
    start, end = item.get("start"), item.get("end")
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise BadValue(
            "invalid_span",
            f"the span {start!r:.20}…{end!r:.20} is not within the text's {len(text)} characters",
            "Offsets count characters from 0; the end is not included.",
            column="spans",
        )
    if not _WORD.search(text, start, end):
        raise BadValue("invalid_span", f"the span {start}…{end} holds no word", column="spans")
    return start, end, kinds.label(item["label"])


FORMAT = TaskFormat(
    name="token-classification",
    title="Token classification",
    description="Gives each word of a text a tag: entities, parts of speech, chunks.",
    modality="text",
    schema=pa.schema(
        [
            ID,
            pa.field("tokens", pa.list_(pa.string()), nullable=False),
            pa.field("tags", pa.list_(pa.string()), nullable=False),
        ]
    ),
    shapes=(
        Shape(
            "tokens,tags",
            (
                Column("tokens", "The words, in order.", kinds.tokens, aliases=("words",)),
                Column(
                    "tags",
                    "A tag a word; O for none.",
                    kinds.tags,
                    aliases=("ner_tags", "labels", "pos_tags", "chunk_tags"),
                ),
            ),
            _same_length,
            labels=lambda row: row["tags"],
            min_labels=2,
        ),
        Shape(
            "text,spans",
            (
                Column("text", "The text.", kinds.text),
                Column(
                    "spans",
                    "Its entities: a list of {start, end, label}, in characters.",
                    kinds.items,
                    aliases=("entities",),
                ),
            ),
            _from_spans,
            labels=lambda row: row["tags"],
            min_labels=2,
        ),
    ),
    formats=(
        'JSON Lines: {"tokens": ["…"], "tags": ["…"]}; whole numbers under `ner_tags` too',
        "CoNLL: one word a line, its tag last, a blank line between sentences",
        'spans: {"text": "…", "spans": [{"start": 0, "end": 5, "label": "…"}]}',
    ),
    metrics=("loss", "f1", "precision", "recall", "accuracy"),
    inputs=("tokens",),
    outputs=("tags",),
    example=(
        {"tokens": ["Ada", "lives", "in", "Paris"], "tags": ["B-PER", "O", "O", "B-LOC"]},
        {"tokens": ["It", "rains"], "tags": ["O", "O"]},
    ),
    example_text={
        "jsonl": '{"tokens": ["Ada", "lives", "in", "Paris"], '
        '"tags": ["B-PER", "O", "O", "B-LOC"]}\n'
        '{"tokens": ["It", "rains"], "tags": ["O", "O"]}\n',
        "conll": "Ada B-PER\nlives O\nin O\nParis B-LOC\n\nIt O\nrains O\n",
    },
    plain_text="conll",
)
