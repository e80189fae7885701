from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from training import predict

TEXT = "abc de fghab c defgh"


def test_an_entity_is_told_in_whole_words(tmp_path: Path) -> None:
    """The further tokens of a word were taught nothing, so nothing is asked of them."""
    letters = {letter: number for number, letter in enumerate("?abcdefgh")}
    letters |= {f"##{letter}": len(letters) + n for n, letter in enumerate("abcdefgh")}
    backend = Tokenizer(models.WordPiece(vocab=letters, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="?", pad_token="?"
    ).save_pretrained(tmp_path)  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, initializer_range=2.0, id2label={0: "B-X", 1: "I-X", 2: "B-Y"},
    )  # fmt: skip
    BertForTokenClassification(config).save_pretrained(tmp_path)
    asked = {"task": "token-classification", "folder": str(tmp_path), "input": {"text": TEXT}}
    found = predict.TASKS["token-classification"](asked)
    assert len(found) > 1
    starts = {0, *(place + 1 for place, letter in enumerate(TEXT) if letter == " ")}
    ends = {len(TEXT), *(place for place, letter in enumerate(TEXT) if letter == " ")}
    assert {entity["start"] for entity in found} <= starts
    assert {entity["end"] for entity in found} <= ends
