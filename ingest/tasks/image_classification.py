"""Image classification: one label an image."""

from __future__ import annotations

import pyarrow as pa

from ingest import kinds
from ingest.tasks.base import ID, IMAGE, Column, Shape, TaskFormat, one_label

LABEL = Column(
    "label",
    "The class. At least two classes.",
    kinds.label,
    aliases=("labels", "category", "class", "fine_label"),
)

FORMAT = TaskFormat(
    name="image-classification",
    title="Image classification",
    description="Gives each image one of the labels seen in training.",
    modality="image",
    schema=pa.schema([ID, *IMAGE, pa.field("label", pa.string(), nullable=False)]),
    shapes=(
        Shape(
            "file_name,label",
            (
                Column(
                    "file_name",
                    "The image's name in the archive.",
                    kinds.text,
                    aliases=("filename", "file", "path", "image_path"),
                    loads="image",
                ),
                LABEL,
            ),
            labels=one_label,
            min_labels=2,
        ),
        Shape(
            "image,label",
            (
                Column(
                    "image",
                    "The image's bytes, or its name in the archive.",
                    kinds.anything,
                    aliases=("img",),
                    loads="image",
                ),
                LABEL,
            ),
            labels=one_label,
            min_labels=2,
        ),
    ),
    formats=(
        "a zip or tar of class folders: `cat/1.jpg`, `dog/7.png`",
        "a zip or tar with `metadata.csv`: `file_name,label`",
        "Parquet with the columns `image,label`",
    ),
    metrics=("loss", "accuracy", "f1_macro"),
    inputs=("image",),
    outputs=("label",),
    example=({"file_name": "1.png", "label": "cat"}, {"file_name": "2.png", "label": "dog"}),
    layouts=("metadata", "class_folders"),
)
