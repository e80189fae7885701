"""Every way of writing the text tasks' rows becomes the task's one schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.make import lines, parquet
from tests.ingest.reading import ingest, refused


def message(role: str, content: str) -> dict[str, Any]:
    """A message as the schema has it."""
    rest = dict.fromkeys(("name", "tool_calls", "tool_call_id", "weight"))
    return {"role": role, "content": content, **rest}


USER = {"role": "user", "content": "hi"}
BOT = {"role": "assistant", "content": "hello"}


def rows_of(tmp_path: Path, content: str | bytes, task: str, **options: Any) -> list[Any]:
    _, rows = ingest(tmp_path, content, task=task, **options)
    return [{key: value for key, value in row.items() if key != "id"} for row in rows]


@pytest.mark.parametrize(
    "content",
    [
        lines({"text": "a", "labels": ["y", "x", "y"]}, {"text": "b", "labels": []}),
        lines({"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}),
        b'text,labels\na,"[""x"", ""y""]"\nb,[]\n',
    ],
)
def test_several_labels(tmp_path: Path, content: bytes) -> None:
    prepared, rows = ingest(tmp_path, content)
    assert prepared.report["shape"] == "text,labels"
    assert [row["labels"] for row in rows] == [["x", "y"], []]
    assert prepared.labels == ["x", "y"]


def test_regression(tmp_path: Path) -> None:
    prepared, rows = ingest(tmp_path, "text,target\na,1\nb,2.5\n")
    assert [row["target"] for row in rows] == [1.0, 2.5]
    assert prepared.labels == []
    assert ingest(tmp_path, "text,score\na,1\nb,2\n")[1][0]["target"] == 1.0


def test_target_of_words_is_a_label(tmp_path: Path) -> None:
    assert ingest(tmp_path, "text,target\na,x\nb,y\n")[0].labels == ["x", "y"]


def test_target_of_whole_numbers_is_asked_about(tmp_path: Path) -> None:
    content = "text,target\na,0\nb,1\n"
    assert 'column_mapping: {"label": "target"}' in str(refused(tmp_path, content))
    classes, _ = ingest(tmp_path, content, column_mapping={"label": "target"})
    amounts, rows = ingest(tmp_path, content, column_mapping={"target": "target"})
    assert classes.labels == ["0", "1"]
    assert amounts.labels == []
    assert rows[1]["target"] == 1.0


def test_a_shape_may_be_demanded(tmp_path: Path) -> None:
    error = refused(tmp_path, "text,target\na,0.5\nb,1\n", shape="text,labels")
    assert "no column `labels`" in str(error)
    content = "text,label,target\na,1,0.5\nb,2,1.5\n"
    assert ingest(tmp_path, content, shape="text,target")[0].labels == []
    assert ingest(tmp_path, content, shape="text,label")[0].labels == ["1", "2"]


CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
"""


@pytest.mark.parametrize(
    "content",
    [
        CONLL,
        CONLL.replace(" ", "\t"),
        lines(
            {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
            {"tokens": ["Peter"], "tags": ["B-PER"]},
        ),
        lines(
            {"text": "EU rejects", "spans": [{"start": 0, "end": 2, "label": "ORG"}]},
            {"text": "Peter", "spans": [{"start": 0, "end": 5, "label": "PER"}]},
        ),
        parquet(
            [
                {"tokens": ["EU", "rejects"], "ner_tags": [1, 0]},
                {"tokens": ["Peter"], "ner_tags": [2]},
            ],
            {
                "info": {
                    "features": {
                        "ner_tags": {
                            "_type": "List",
                            "feature": {"_type": "ClassLabel", "names": ["O", "B-ORG", "B-PER"]},
                        }
                    }
                }
            },
        ),
    ],
    ids=["conll", "conll tabs", "jsonl", "spans", "parquet"],
)
def test_tagged_words(tmp_path: Path, content: str | bytes) -> None:
    assert rows_of(tmp_path, content, "token-classification") == [
        {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
        {"tokens": ["Peter"], "tags": ["B-PER"]},
    ]


def test_spans_split_words_only_where_they_must(tmp_path: Path) -> None:
    text = "Flights to New York-bound ports"
    start = text.index("New")
    spans = [{"start": start, "end": start + 8, "label": "LOC"}]
    (row, _) = rows_of(
        tmp_path, lines({"text": text, "spans": spans}, {"text": "x", "spans": []}),
        "token-classification",
    )  # fmt: skip
    tagged = dict(zip(row["tokens"], row["tags"], strict=True))
    assert tagged["New"] == "B-LOC"
    assert tagged["York"] == "I-LOC"
    assert tagged["bound"] == "O"


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Ada",
            "paragraphs": [
                {
                    "context": "Ada was born in London.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "Where?",
                            "answers": [{"text": "London", "answer_start": 16}],
                            "is_impossible": False,
                        },
                        {"id": "2", "question": "When?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}
ANSWER = {"context": "Ada was born in London.", "question": "Where?"}
NONE = {"context": "Ada was born in London.", "question": "When?"}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(SQUAD),
        json.dumps(SQUAD, indent=1),
        lines(
            ANSWER | {"answers": {"text": ["London"], "answer_start": [16]}},
            NONE | {"answers": {"text": [], "answer_start": []}},
        ),
        lines(ANSWER | {"answers": ["London"]}, NONE | {"answers": []}),
        lines(ANSWER | {"answer": "London", "answer_start": 16}, NONE | {"answer": ""}),
        "context,question,answer\nAda was born in London.,Where?,London\n"
        "Ada was born in London.,When?,\n",
    ],
    ids=["squad", "squad spread", "huggingface", "texts", "flat", "csv"],
)
def test_answers(tmp_path: Path, content: str | bytes) -> None:
    assert rows_of(tmp_path, content, "question-answering") == [
        ANSWER | {"answers": [{"text": "London", "start": 16}]},
        NONE | {"answers": []},
    ]


def test_translation(tmp_path: Path) -> None:
    plain = rows_of(tmp_path, "source\ttarget\nyes\tja\n", "translation")
    by_code = rows_of(tmp_path, lines({"translation": {"en": "yes", "de": "ja"}}), "translation")
    assert plain == [
        {"source": "yes", "target": "ja", "source_language": None, "target_language": None}
    ]
    assert by_code == [
        {"source": "yes", "target": "ja", "source_language": "en", "target_language": "de"}
    ]


@pytest.mark.parametrize("names", ["source,target", "document,summary", "article,highlights"])
def test_summarization(tmp_path: Path, names: str) -> None:
    expected = [{"source": "long text", "target": "short"}]
    assert rows_of(tmp_path, f"{names}\nlong text,short\n", "summarization") == expected


CHAT = [message("user", "hi"), message("assistant", "hello")]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, BOT]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, BOT]},
        {"instruction": "hi", "output": "hello"},
        {"instruction": "hi", "input": "", "output": "hello"},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {"prompt": [USER], "completion": [BOT]},
    ],
)
def test_chats(tmp_path: Path, row: dict[str, Any]) -> None:
    (got,) = rows_of(tmp_path, lines(row), "text-generation")
    assert got == {
        "messages": CHAT, "tools": None, "prompt": None, "completion": None, "text": None
    }  # fmt: skip


def test_tools_weights_and_systems_are_kept(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "open", "arguments": "{}"}}
    chat = [
        {"role": "system", "content": "be brief"},
        USER,
        BOT | {"weight": 0},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "done", "tool_call_id": "c1"},
        BOT,
    ]
    tools = [{"type": "function", "function": {"name": "open", "parameters": {}}}]
    (row,) = rows_of(tmp_path, lines({"messages": chat, "tools": tools}), "text-generation")
    assert [item["weight"] for item in row["messages"]] == [None, None, 0, None, None, None]
    assert json.loads(row["messages"][3]["tool_calls"]) == [call]
    assert row["messages"][4]["tool_call_id"] == "c1"
    assert json.loads(row["tools"]) == tools


def test_of_a_prompt_in_messages_nothing_is_learnt(tmp_path: Path) -> None:
    row = {"prompt": [USER, BOT, USER], "completion": [BOT]}
    (got,) = rows_of(tmp_path, lines(row), "text-generation")
    assert [item["weight"] for item in got["messages"]] == [None, 0, None, None]


def test_prompts_and_texts_stay_as_they_are(tmp_path: Path) -> None:
    (pair,) = rows_of(tmp_path, lines({"prompt": "2+2=", "completion": " 4"}), "text-generation")
    assert (pair["prompt"], pair["completion"], pair["messages"]) == ("2+2=", " 4", None)
    texts = rows_of(tmp_path, "First, a line.\n\nThen, another.\n", "text-generation")
    assert [row["text"] for row in texts] == ["First, a line.", "Then, another."]
    column = rows_of(tmp_path, "id,text\n1,one\n", "text-generation")
    assert [row["text"] for row in column] == ["one"]


PREFERRED = [message("assistant", "yes")]
OTHER = [message("assistant", "no")]


@pytest.mark.parametrize(
    ("row", "chat"),
    [
        (
            {
                "input": {"messages": [USER], "tools": []},
                "preferred_output": [{"role": "assistant", "content": "yes"}],
                "non_preferred_output": [{"role": "assistant", "content": "no"}],
            },
            True,
        ),
        ({"prompt": "hi", "chosen": "yes", "rejected": "no"}, False),
        (
            {
                "prompt": [USER],
                "chosen": [{"role": "assistant", "content": "yes"}],
                "rejected": [{"role": "assistant", "content": "no"}],
            },
            True,
        ),
        (
            {
                "chosen": [USER, {"role": "assistant", "content": "yes"}],
                "rejected": [USER, {"role": "assistant", "content": "no"}],
            },
            True,
        ),
    ],
)
def test_preferences(tmp_path: Path, row: dict[str, Any], chat: bool) -> None:
    (got,) = rows_of(tmp_path, lines(row), "preference")
    assert got == {
        "prompt": [message("user", "hi")],
        "chosen": PREFERRED,
        "rejected": OTHER,
        "chat": chat,
        "tools": None,
    }


def test_shared_beginning_is_the_prompt(tmp_path: Path) -> None:
    row = {"chosen": "Human: hi Bot: sure thing", "rejected": "Human: hi Bot: suit yourself"}
    (got,) = rows_of(tmp_path, lines(row), "preference")
    assert got["prompt"][0]["content"] == "Human: hi Bot: "
    assert got["chosen"][0]["content"] == "sure thing"


def test_unpaired_answers(tmp_path: Path) -> None:
    rows = [
        {"prompt": "hi", "completion": "yes", "label": True},
        {"prompt": "hi", "completion": "no", "label": False},
    ]
    good, bad = rows_of(tmp_path, lines(*rows), "preference")
    assert (good["chosen"], good["rejected"]) == (PREFERRED, None)
    assert (bad["chosen"], bad["rejected"]) == (None, OTHER)


def test_embeddings(tmp_path: Path) -> None:
    task = "feature-extraction"
    (pair,) = rows_of(tmp_path, "anchor,positive\na,b\n", task)
    assert (pair["negatives"], pair["score"]) == ([], None)
    (triplet,) = rows_of(tmp_path, lines({"query": "a", "pos": "b", "neg": ["c", "d"]}), task)
    assert triplet["negatives"] == ["c", "d"]
    (scored,) = rows_of(tmp_path, "sentence1,sentence2,score\na,b,0.5\n", task)
    assert (scored["positive"], scored["score"]) == ("b", 0.5)
    judged = rows_of(tmp_path, "premise,hypothesis,label\na,b,0\nc,d,1\n", task)
    assert [row["label"] for row in judged] == ["0", "1"]


def test_masked_texts(tmp_path: Path) -> None:
    for content in ("one, two\nthree\n", lines({"text": "one, two"}, {"text": "three"})):
        rows = rows_of(tmp_path, content, "fill-mask")
        assert [row["text"] for row in rows] == ["one, two", "three"]


def test_validation_of_a_mapped_text_column(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "n,body\n1,hello\n", "fill-mask", column_mapping={"text": "body"})
    assert rows == [{"text": "hello"}]
