"""Masked language modelling: plain text; the engine masks it."""

from __future__ import annotations

import pyarrow as pa

from ingest import kinds
from ingest.tasks.base import ID, Column, Shape, TaskFormat

FORMAT = TaskFormat(
    name="fill-mask",
    title="Masked language modelling",
    description="Goes on pretraining an encoder on your texts by filling in hidden words.",
    modality="text",
    schema=pa.schema([ID, pa.field("text", pa.string(), nullable=False)]),
    shapes=(
        Shape("text", (Column("text", "The text.", kinds.text, aliases=("content", "sentence")),)),
    ),
    formats=(
        "plain text, one passage a line",
        'JSON Lines: {"text": "…"}',
        "CSV, TSV, a JSON array or Parquet with a column `text`",
    ),
    metrics=("loss", "perplexity", "accuracy"),
    inputs=("text",),
    outputs=(),
    example=({"text": "The pump is primed before it is started."},),
    example_text={
        "jsonl": '{"text": "The pump is primed before it is started."}\n',
        "txt": "The pump is primed before it is started.\n",
    },
    plain_text="lines",
)
