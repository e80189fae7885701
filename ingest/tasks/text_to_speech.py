"""Speech synthesis: texts and recordings of them, of one speaker or several."""

from __future__ import annotations

import pyarrow as pa

from ingest import kinds
from ingest.tasks.base import AUDIO, ID, Column, Shape, TaskFormat

FORMAT = TaskFormat(
    name="text-to-speech",
    title="Speech synthesis",
    description="Speaks a text in the voice of the recordings.",
    modality="audio",
    schema=pa.schema(
        [
            ID,
            *AUDIO,
            pa.field("text", pa.string(), nullable=False),
            pa.field("speaker", pa.string()),
        ]
    ),
    shapes=(
        Shape(
            "file_name,text",
            (
                Column(
                    "file_name",
                    "The recording's name in the archive, or its bytes.",
                    kinds.anything,
                    aliases=("path", "audio", "file", "filename"),
                    loads="audio",
                ),
                Column(
                    "text",
                    "What is spoken.",
                    kinds.text,
                    aliases=("transcription", "sentence", "normalized_text"),
                ),
                Column(
                    "speaker",
                    "Who speaks.",
                    kinds.label,
                    required=False,
                    aliases=("speaker_id",),
                ),
            ),
        ),
    ),
    formats=(
        "a zip or tar with `metadata.csv`: `file_name,text` and, for several, `speaker`",
        "Parquet with the columns `audio,text`",
    ),
    metrics=("loss",),
    inputs=("text", "speaker"),
    outputs=("audio",),
    example=({"file_name": "1.wav", "text": "The valve is open."},),
    layouts=("metadata",),
)
