from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import BadData, Unprocessable
from ingest import tasks
from ingest.prepare import prepare
from ingest.tasks.base import TaskFormat


@pytest.mark.parametrize("format", tasks.all_formats(), ids=lambda format: format.name)
def test_each_example_is_a_dataset_of_its_task(format: TaskFormat, tmp_path: Path) -> None:
    assert format.schema.field("id").type == "int64"
    for kind, text in format.example_text.items():
        source = tmp_path / f"example.{kind}"
        source.write_text(text)
        prepared = prepare(source, format.name, out=tmp_path / "out", role="training")
        assert prepared.rows == len(format.example)


@pytest.mark.parametrize(
    ("columns", "task"),
    [
        (["text", "label"], "text-classification"),
        (["Review", "Sentiment", "date"], "text-classification"),
        (["tokens", "tags"], "token-classification"),
        (["context", "question", "answers", "id", "title"], "question-answering"),
        (["messages"], "text-generation"),
        (["instruction", "input", "output"], "text-generation"),
        (["prompt", "completion"], "text-generation"),
        (["prompt", "completion", "label"], "preference"),
        (["prompt", "chosen", "rejected"], "preference"),
        (["input", "preferred_output", "non_preferred_output"], "preference"),
        (["translation"], "translation"),
        (["document", "summary"], "summarization"),
        (["anchor", "positive", "negative"], "feature-extraction"),
        (["sentence1", "sentence2", "score"], None),
        (["premise", "hypothesis", "label"], None),
        (["source", "target"], None),
        (["text"], None),
        (["foo", "bar"], None),
        ([], None),
    ],
)
def test_task_from_column_names(columns: list[str], task: str | None) -> None:
    assert tasks.infer(columns) == task


def test_columns_of_another_task_are_recognised(tmp_path: Path) -> None:
    source = tmp_path / "train.jsonl"
    source.write_text('{"messages": [{"role": "assistant", "content": "hi"}]}\n')
    with pytest.raises(BadData, match="fits the task text-generation"):
        prepare(source, "text-classification", out=tmp_path / "out", role="training")


def test_mapping_of_columns_that_do_not_go_together(tmp_path: Path) -> None:
    source = tmp_path / "train.csv"
    source.write_text("text,label,score\na,b,1\n")
    mapping = {"label": "label", "target": "score"}
    with pytest.raises(Unprocessable, match="do not go together"):
        prepare(
            source,
            "text-classification",
            column_mapping=mapping,
            out=tmp_path / "o",
            role="training",
        )
