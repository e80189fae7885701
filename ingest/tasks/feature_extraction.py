"""Sentence embeddings: pairs and triplets that belong together, scored pairs, or judged pairs."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ingest import kinds
from ingest.problems import BadValue
from ingest.tasks.base import ID, Column, Row, Shape, TaskFormat, one_label


def _negatives(value: Any) -> list[str]:
    """One text or a list of them."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [kinds.text(value)]
    return kinds.texts(value)


def _positive(row: Row) -> Row:
    negatives = row.pop("negative", None) or []
    return row | {"negatives": negatives}


def _scored(row: Row) -> Row:
    if not -1 <= row["score"] <= 1:
        raise BadValue(
            "score_out_of_range",
            f"the score is {row['score']:g}, and is to be learnt as a cosine",
            "Bring the scores to 0 to 1, or -1 to 1: divide them by the highest there can be.",
            column="score",
        )
    return {
        "anchor": row["sentence1"],
        "positive": row["sentence2"],
        "negatives": [],
        "score": row["score"],
    }


def _judged(row: Row) -> Row:
    return {
        "anchor": row["premise"],
        "positive": row["hypothesis"],
        "negatives": [],
        "label": row["label"],
    }


FORMAT = TaskFormat(
    name="feature-extraction",
    title="Sentence embeddings",
    description="Places texts that belong together near each other.",
    modality="text",
    schema=pa.schema(
        [
            ID,
            pa.field("anchor", pa.string(), nullable=False),
            pa.field("positive", pa.string(), nullable=False),
            pa.field("negatives", pa.list_(pa.string()), nullable=False),
            pa.field("score", pa.float64()),
            pa.field("label", pa.string()),
        ]
    ),
    shapes=(
        Shape(
            "anchor,positive,negative",
            (
                Column("anchor", "A text.", kinds.text, aliases=("query",)),
                Column("positive", "One that belongs to it.", kinds.text, aliases=("pos",)),
                Column(
                    "negative",
                    "One that does not, or a list of such.",
                    _negatives,
                    required=False,
                    aliases=("negatives", "neg", "hard_negatives"),
                ),
            ),
            _positive,
        ),
        Shape(
            "sentence1,sentence2,score",
            (
                Column("sentence1", "A text.", kinds.text, aliases=("text1", "text_a")),
                Column("sentence2", "Another.", kinds.text, aliases=("text2", "text_b")),
                Column(
                    "score",
                    "How near they are, from 0 or -1 to 1.",
                    kinds.number,
                    aliases=("similarity",),
                ),
            ),
            _scored,
        ),
        Shape(
            "premise,hypothesis,label",
            (
                Column("premise", "A text.", kinds.text),
                Column("hypothesis", "Another.", kinds.text),
                Column("label", "What holds between them.", kinds.label),
            ),
            _judged,
            labels=one_label,
            min_labels=2,
        ),
    ),
    formats=(
        "CSV, TSV, JSON Lines, a JSON array or Parquet with the columns "
        "`anchor,positive` and, if you have them, `negative`",
        "scored pairs: `sentence1,sentence2,score`",
        "judged pairs: `premise,hypothesis,label`",
    ),
    metrics=("loss", "accuracy", "mrr", "spearman"),
    inputs=("anchor", "positive", "negatives"),
    outputs=("score", "label"),
    example=(
        {"anchor": "reset my password", "positive": "I cannot log in", "negative": "ship it"},
    ),
    example_text={
        "csv": "anchor,positive,negative\nreset my password,I cannot log in,ship it\n",
        "jsonl": '{"anchor": "reset my password", "positive": "I cannot log in", '
        '"negative": "ship it"}\n',
    },
)
