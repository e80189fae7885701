"""Speech recognition: recordings and what is said in them."""

from __future__ import annotations

import pyarrow as pa

from ingest import kinds
from ingest.tasks.base import AUDIO, ID, Column, Row, Shape, TaskFormat

FASTEST = 40.0
"""Characters a second beyond which no one speaks; CTC needs a frame for each of them too."""


def _build(row: Row) -> Row:
    text = row.pop("transcription")
    if len(text) > FASTEST * row["seconds"]:
        remark = (
            "transcript_too_long",
            f"{len(text)} characters in {row['seconds']:.1f} seconds",
        )
        row["remarks"] = [*row["remarks"], remark]
    return row | {"text": text}


FORMAT = TaskFormat(
    name="automatic-speech-recognition",
    title="Speech recognition",
    description="Writes down what is said in a recording.",
    modality="audio",
    schema=pa.schema([ID, *AUDIO, pa.field("text", pa.string(), nullable=False)]),
    shapes=(
        Shape(
            "file_name,transcription",
            (
                Column(
                    "file_name",
                    "The recording's name in the archive, or its bytes.",
                    kinds.anything,
                    aliases=("path", "audio", "file", "filename", "audio_path"),
                    loads="audio",
                ),
                Column(
                    "transcription",
                    "What is said.",
                    kinds.text,
                    aliases=("sentence", "text", "transcript"),
                ),
            ),
            _build,
        ),
    ),
    formats=(
        "a zip or tar with `metadata.csv`: `file_name,transcription`",
        "Common Voice: a TSV with `path,sentence` beside `clips/`, in a zip or tar",
        "Parquet with the columns `audio,transcription`",
    ),
    metrics=("loss", "wer", "cer"),
    inputs=("audio",),
    outputs=("text",),
    example=({"file_name": "1.wav", "transcription": "open the valve"},),
    layouts=("metadata",),
)
