"""The characters that a CTC model writes with."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedTokenizerBase, Wav2Vec2CTCTokenizer

from training.failures import ModelUnavailable

BLANK, UNKNOWN, BETWEEN_WORDS = "[PAD]", "[UNK]", "|"


def has_tokenizer(folder: Path) -> bool:
    """Whether a model knows its characters: one that has only listened so far does not."""
    return any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json"))


def alphabet(train: Path | None) -> PreTrainedTokenizerBase:
    """A tokenizer for the characters of a training file, in the order of their code points."""
    if train is None:
        raise ModelUnavailable(
            "The model comes without the characters that it writes with.", param="model"
        )
    with pa.memory_map(str(train)) as source:
        texts = pa.ipc.open_file(source).read_all()["text"].to_pylist()
    found = sorted(set().union(*texts) - {" ", BETWEEN_WORDS})
    characters = [BLANK, UNKNOWN, BETWEEN_WORDS, *found]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps({name: place for place, name in enumerate(characters)}))
        return Wav2Vec2CTCTokenizer(
            str(path),
            unk_token=UNKNOWN,
            pad_token=BLANK,
            word_delimiter_token=BETWEEN_WORDS,
            bos_token=None,
            eos_token=None,
        )


def spelled(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text in the case that the model writes in, where it writes in one alone."""
    known = tokenizer.get_vocab()

    def in_case(character: str) -> str:
        for form in (character, character.upper(), character.lower()):
            if form in known:
                return form
        return character

    return "".join(map(in_case, text))
