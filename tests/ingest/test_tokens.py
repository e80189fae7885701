"""Lengths in a model's own tokens, from a tokenizer made for the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from ingest import tasks
from ingest.prepare import prepare
from ingest.tokens import token_lengths
from tests.ingest.make import lines


@pytest.fixture
def words() -> Tokenizer:
    """A tokenizer for which each word is a token."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def lengths(
    tmp_path: Path, words: Tokenizer, task: str, *rows: dict[str, Any], **options: Any
) -> dict[str, Any]:
    source, out = tmp_path / "upload", tmp_path / "out.arrow"
    source.write_bytes(lines(*rows))
    prepare(source, task, out=out, role="training")
    return token_lengths(out, tasks.get(task), words, **options)


def test_texts_of_a_row_count_together(tmp_path: Path, words: Tokenizer) -> None:
    rows = [
        {"text": "one two three four", "text_pair": "five six", "label": "not counted"},
        {"text": "one", "text_pair": None, "label": "x"},
    ]
    found = lengths(tmp_path, words, "text-classification", *rows)
    assert (found["tokens"]["max"], found["tokens"]["min"], found["tokens"]["sum"]) == (6, 1, 7)


def test_what_a_limit_cuts(tmp_path: Path, words: Tokenizer) -> None:
    rows = [{"text": "word " * many} for many in (3, 9, 5)]
    found = lengths(tmp_path, words, "fill-mask", *rows, max_length=4)
    assert (found["rows_beyond"], found["tokens_beyond"]) == (2, 6)
    assert found["longest"] == [{"id": 2, "tokens": 9}, {"id": 3, "tokens": 5}]


def test_chats(tmp_path: Path, words: Tokenizer) -> None:
    chat = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]
    found = lengths(tmp_path, words, "text-generation", {"messages": chat})
    assert found["tokens"]["sum"] == 3
