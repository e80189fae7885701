"""Extractive question answering: the answer is a span of the context, or there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from ingest import kinds
from ingest.problems import BadValue
from ingest.tasks.base import ID, Column, Row, Shape, TaskFormat

QUESTION = Column("question", "The question.", kinds.text)
CONTEXT = Column("context", "The text that holds the answer.", kinds.text, aliases=("passage",))


def _with_answers(row: Row) -> Row:
    answers = [_placed(text, start, row["context"]) for text, start in _pairs(row.pop("answers"))]
    return row | {"answers": answers}


def _with_answer(row: Row) -> Row:
    text, start = row.pop("answer"), row.pop("answer_start", None)
    return row | {"answers": [_placed(text, start, row["context"])] if text else []}


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    """Text and start of each answer, from any of the three ways of writing them."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = kinds.mapping(value) if value.lstrip()[0] == "{" else kinds.items(value)
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            return list(zip(texts, starts, strict=True))
    if isinstance(value, list):
        if all(isinstance(item, dict) and "text" in item for item in value):
            return [(item["text"], item.get("answer_start")) for item in value]
        if all(isinstance(item, str) for item in value):
            return [(item, None) for item in value]
    if isinstance(value, str):
        return [(value, None)] if value else []
    raise BadValue(
        "invalid_answers",
        "the answers have none of the known forms",
        'Write {"text": ["…"], "answer_start": [0]} or [{"text": "…", "answer_start": 0}].',
        column="answers",
    )


def _placed(text: Any, start: Any, context: str) -> dict[str, Any]:
    if not isinstance(text, str) or not text.strip():
        raise BadValue("empty_text", "an answer is empty", "No answer is [].", column="answers")
    if start is None:
        start = context.find(text)
        if start >= 0 and context.find(text, start + 1) >= 0:
            raise BadValue(
                "ambiguous_answer",
                "the answer occurs more than once in the context",
                "Give `answer_start`, in characters from 0.",
                column="answers",
            )
    if type(start) is not int or start < 0 or context[start : start + len(text)] != text:
        found = context.find(text)
        raise BadValue(
            "answer_not_in_context",
            f"the answer does not stand at character {start} of the context"
            if found >= 0
            else "the answer is not in the context",
            f"It stands at {found}." if found >= 0 else "It must be a literal part of it.",
            column="answers",
        )
    return {"text": text, "start": start}


def _unnest(element: Row) -> Iterator[Row] | None:
    """The questions of an article of SQuAD's JSON."""
    if not isinstance(element.get("paragraphs"), list):
        return None
    return _questions(element["paragraphs"])


def _questions(paragraphs: list[Any]) -> Iterator[Row]:
    for paragraph in paragraphs:
        if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
            raise BadValue("invalid_answers", "a paragraph without a list `qas`")
        for question in paragraph["qas"]:
            if not isinstance(question, dict):
                raise BadValue("invalid_answers", "a question that is not an object")
            impossible = question.get("is_impossible") is True
            yield {
                "question": question.get("question"),
                "context": paragraph.get("context"),
                "answers": [] if impossible else question.get("answers"),
            }


FORMAT = TaskFormat(
    name="question-answering",
    title="Extractive question answering",
    description="Finds the part of a context that answers a question, or says that none does.",
    modality="text",
    schema=pa.schema(
        [
            ID,
            pa.field("question", pa.string(), nullable=False),
            pa.field("context", pa.string(), nullable=False),
            pa.field(
                "answers",
                pa.list_(
                    pa.struct(
                        [
                            pa.field("text", pa.string(), nullable=False),
                            pa.field("start", pa.int32(), nullable=False),
                        ]
                    )
                ),
                nullable=False,
            ),
        ]
    ),
    shapes=(
        Shape(
            "context,question,answers",
            (
                CONTEXT,
                QUESTION,
                Column("answers", "Answers with their starts in characters.", kinds.anything),
            ),
            _with_answers,
        ),
        Shape(
            "context,question,answer",
            (
                CONTEXT,
                QUESTION,
                Column("answer", "The answer; empty for none.", kinds.any_text),
                Column("answer_start", "Where it starts.", kinds.integer, required=False),
            ),
            _with_answer,
        ),
    ),
    formats=(
        "SQuAD v1 or v2 JSON",
        'JSON Lines: {"context": "…", "question": "…", '
        '"answers": {"text": ["…"], "answer_start": [0]}}',
        "CSV: `context,question,answer,answer_start`",
    ),
    metrics=("loss", "exact_match", "f1"),
    inputs=("question", "context"),
    outputs=("answers",),
    counted=("context",),
    example=(
        {
            "context": "Ada was born in London.",
            "question": "Where was Ada born?",
            "answers": {"text": ["London"], "answer_start": [16]},
        },
    ),
    example_text={
        "jsonl": '{"context": "Ada was born in London.", "question": "Where was Ada born?", '
        '"answers": {"text": ["London"], "answer_start": [16]}}\n',
        "csv": "context,question,answer\nAda was born in London.,Where was Ada born?,London\n",
    },
    unnest=_unnest,
)
