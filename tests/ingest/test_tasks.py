from __future__ import annotations

from pathlib import Path

import pytest

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
        (["foo", "bar"], None),
        ([], None),
    ],
)
def test_task_from_column_names(columns: list[str], task: str | None) -> None:
    assert tasks.infer(columns) == task
