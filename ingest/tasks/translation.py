"""Translation: a text and the same in another language."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ingest import kinds
from ingest.problems import BadValue
from ingest.tasks.base import ID, Column, Row, Shape, TaskFormat


def _from_pair(row: Row) -> Row:
    """`{"en": …, "de": …}`: the first is translated into the second."""
    pair: dict[str, Any] = row["translation"]
    if len(pair) != 2:
        raise BadValue(
            "invalid_translation",
            f"two languages expected, found {len(pair)}",
            "Keep the language to translate from and the one to translate into, in that order.",
            column="translation",
        )
    checked = {}
    for language, value in pair.items():
        try:
            checked[language] = kinds.text(value)
        except BadValue as bad:
            raise BadValue(
                bad.code, f"{language}: {bad.message}", bad.hint, column="translation"
            ) from None
    (source_language, source), (target_language, target) = checked.items()
    return {
        "source": source,
        "target": target,
        "source_language": source_language,
        "target_language": target_language,
    }


FORMAT = TaskFormat(
    name="translation",
    title="Translation",
    description="Turns a text into another language.",
    modality="text",
    schema=pa.schema(
        [
            ID,
            pa.field("source", pa.string(), nullable=False),
            pa.field("target", pa.string(), nullable=False),
            pa.field("source_language", pa.string()),
            pa.field("target_language", pa.string()),
        ]
    ),
    shapes=(
        Shape(
            "source,target",
            (
                Column("source", "The text to translate.", kinds.text, aliases=("src", "input")),
                Column("target", "Its translation.", kinds.text, aliases=("tgt", "output")),
                Column("source_language", "Its language.", kinds.text, required=False),
                Column("target_language", "The other language.", kinds.text, required=False),
            ),
        ),
        Shape(
            "translation",
            (Column("translation", "Both texts by language code.", kinds.mapping),),
            _from_pair,
        ),
    ),
    formats=(
        "CSV, TSV, JSON Lines, a JSON array or Parquet with the columns `source,target`",
        'JSON Lines: {"translation": {"en": "…", "de": "…"}}, from the first to the second',
    ),
    metrics=("loss", "bleu", "chrf"),
    inputs=("source", "source_language", "target_language"),
    outputs=("target",),
    example=(
        {"source": "Good morning", "target": "Guten Morgen"},
        {"source": "Thank you", "target": "Danke"},
    ),
    example_text={
        "csv": "source,target\nGood morning,Guten Morgen\nThank you,Danke\n",
        "jsonl": '{"translation": {"en": "Good morning", "de": "Guten Morgen"}}\n'
        '{"translation": {"en": "Thank you", "de": "Danke"}}\n',
    },
)
