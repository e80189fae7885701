"""Text classification: one label a text, several, or a number; single texts or pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ingest import kinds
from ingest.problems import BadValue
from ingest.tasks.base import ID, Column, Samples, Shape, TaskFormat, one_label

TEXT = Column(
    "text",
    "The text to classify; the first of the two for a pair.",
    kinds.text,
    aliases=(
        "sentence", "review", "content", "text_a", "sentence1", "premise", "input", "tweet",
        "comment", "message", "utterance", "question1", "text1",
    ),
)  # fmt: skip
TEXT_PAIR = Column(
    "text_pair",
    "The second text of a pair.",
    kinds.text,
    required=False,
    aliases=("text_b", "sentence2", "hypothesis", "question2", "text2"),
)
LABEL = Column(
    "label",
    "The class, as text or a whole number. At least two classes.",
    kinds.label,
    aliases=("labels", "category", "class", "target", "sentiment", "intent", "label_text"),
)
LABELS = Column(
    "labels",
    "The classes that apply, as a list; an empty list where none does.",
    kinds.labels,
    aliases=("label", "tags", "categories", "classes"),
)
TARGET = Column(
    "target",
    "The number to predict.",
    kinds.number,
    aliases=("score", "rating", "value"),
)


def _are_lists(values: Sequence[Any]) -> bool:
    """Every value is a list or, in CSV, the JSON text of one: a class may be called `[x`."""
    return bool(values) and all(map(_is_list, values))


def _is_list(value: Any) -> bool:
    try:
        kinds.items(value)
    except BadValue:
        return False
    return True


def _as_number(value: Any) -> float | None:
    try:
        return kinds.number(value)
    except BadValue:
        return None


def _one_label(samples: Samples) -> bool:
    """Not lists; nor numbers under the name `target`, unless the user says they are classes."""
    if _are_lists(samples.values["label"]):
        return False
    if samples.names["label"].strip().lower() != "target" or "label" in samples.mapped:
        return True
    numbers = [_as_number(value) for value in samples.values["label"]]
    if None in numbers:
        return True
    if all(number is not None and number.is_integer() for number in numbers):
        raise BadValue(
            "ambiguous_columns",
            "`target` holds whole numbers, which may be classes or amounts",
            'Say which with column_mapping: {"label": "target"} for classes, '
            '{"target": "target"} for a number to predict.',
        )
    return False


def _many_labels(samples: Samples) -> bool:
    return "labels" in samples.mapped or _are_lists(samples.values["labels"])


def _regression(samples: Samples) -> bool:
    if "target" in samples.mapped or samples.names["target"].strip().lower() != "target":
        return True
    return None not in map(_as_number, samples.values["target"])


FORMAT = TaskFormat(
    name="text-classification",
    title="Text classification",
    description="Gives each text, or pair of texts, one of the labels seen in training, several "
    "of them, or a number.",
    modality="text",
    schema=pa.schema(
        [
            ID,
            pa.field("text", pa.string(), nullable=False),
            pa.field("text_pair", pa.string()),
            pa.field("label", pa.string()),
            pa.field("labels", pa.list_(pa.string())),
            pa.field("target", pa.float64()),
        ]
    ),
    shapes=(
        Shape(
            "text,label",
            (TEXT, TEXT_PAIR, LABEL),
            labels=one_label,
            min_labels=2,
            accepts=_one_label,
        ),
        Shape(
            "text,labels",
            (TEXT, TEXT_PAIR, LABELS),
            labels=lambda row: row["labels"],
            min_labels=2,
            accepts=_many_labels,
        ),
        Shape("text,target", (TEXT, TEXT_PAIR, TARGET), accepts=_regression),
    ),
    formats=(
        "CSV, TSV, JSON Lines, a JSON array or Parquet with the columns `text,label`",
        "pairs: `text,text_pair,label`",
        'several labels a text: {"text": "…", "labels": ["…", "…"]}',
        "regression: `text,target`",
    ),
    metrics=("loss", "accuracy", "f1_macro"),
    inputs=("text", "text_pair"),
    outputs=("label", "labels", "target"),
    example=(
        {"text": "A moving, beautifully shot film.", "label": "positive"},
        {"text": "Two hours that I will not get back.", "label": "negative"},
    ),
    example_text={
        "csv": "text,label\n"
        '"A moving, beautifully shot film.",positive\n'
        "Two hours that I will not get back.,negative\n",
        "jsonl": '{"text": "A moving, beautifully shot film.", "label": "positive"}\n'
        '{"text": "Two hours that I will not get back.", "label": "negative"}\n',
    },
)
