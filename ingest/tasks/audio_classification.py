"""Audio classification: one label a recording."""

from __future__ import annotations

import pyarrow as pa

from ingest import kinds
from ingest.tasks.base import AUDIO, ID, Column, Shape, TaskFormat, one_label

FORMAT = TaskFormat(
    name="audio-classification",
    title="Audio classification",
    description="Gives each recording one of the labels seen in training.",
    modality="audio",
    schema=pa.schema([ID, *AUDIO, pa.field("label", pa.string(), nullable=False)]),
    shapes=(
        Shape(
            "file_name,label",
            (
                Column(
                    "file_name",
                    "The recording's name in the archive, or its bytes.",
                    kinds.anything,
                    aliases=("path", "audio", "file", "filename"),
                    loads="audio",
                ),
                Column(
                    "label",
                    "The class. At least two classes.",
                    kinds.label,
                    aliases=("labels", "category", "class"),
                ),
            ),
            labels=one_label,
            min_labels=2,
        ),
    ),
    formats=(
        "a zip or tar of class folders: `yes/1.wav`, `no/7.flac`",
        "a zip or tar with `metadata.csv`: `file_name,label`",
        "Parquet with the columns `audio,label`",
    ),
    metrics=("loss", "accuracy", "f1_macro"),
    inputs=("audio",),
    outputs=("label",),
    example=({"file_name": "1.wav", "label": "yes"}, {"file_name": "2.wav", "label": "no"}),
    layouts=("metadata", "class_folders"),
)
