"""Text classification: one label a text, or a pair of texts."""

from __future__ import annotations

import pyarrow as pa

from ingest import kinds
from ingest.tasks.base import ID, Column, Shape, TaskFormat

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

FORMAT = TaskFormat(
    name="text-classification",
    title="Text classification",
    description="Gives each text, or pair of texts, one of the labels seen in training.",
    modality="text",
    schema=pa.schema(
        [
            ID,
            pa.field("text", pa.string(), nullable=False),
            pa.field("text_pair", pa.string()),
            pa.field("label", pa.string(), nullable=False),
        ]
    ),
    shapes=(Shape("text,label", (TEXT, TEXT_PAIR, LABEL), labels=True),),
    formats=(
        "CSV or TSV with a header line and the columns `text,label`",
        'JSON Lines: {"text": "…", "label": "…"}',
        "pairs: `text,text_pair,label`",
    ),
    metrics=("loss", "accuracy", "f1_macro"),
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
