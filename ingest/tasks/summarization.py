"""Summarisation: a document and its summary."""

from __future__ import annotations

import pyarrow as pa

from ingest import kinds
from ingest.tasks.base import ID, Column, Shape, TaskFormat

FORMAT = TaskFormat(
    name="summarization",
    title="Summarisation",
    description="Says in a few sentences what a document says.",
    modality="text",
    schema=pa.schema(
        [
            ID,
            pa.field("source", pa.string(), nullable=False),
            pa.field("target", pa.string(), nullable=False),
        ]
    ),
    shapes=(
        Shape(
            "source,target",
            (
                Column(
                    "source",
                    "The document.",
                    kinds.text,
                    aliases=("document", "article", "dialogue"),
                ),
                Column(
                    "target",
                    "Its summary.",
                    kinds.text,
                    aliases=("summary", "highlights", "abstract"),
                ),
            ),
        ),
    ),
    formats=(
        "CSV, TSV, JSON Lines, a JSON array or Parquet with the columns `source,target`",
        "the same with `document,summary` or `article,highlights`",
    ),
    metrics=("loss", "rouge1", "rouge2", "rougeL"),
    inputs=("source",),
    outputs=("target",),
    example=(
        {"document": "The council met for six hours and then agreed.", "summary": "They agreed."},
    ),
    example_text={
        "csv": "document,summary\nThe council met for six hours and then agreed.,They agreed.\n",
        "jsonl": '{"document": "The council met for six hours and then agreed.", '
        '"summary": "They agreed."}\n',
    },
)
