"""Translation by models whose tokenizers are told the languages of what they encode."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    M2M100Config,
    M2M100Tokenizer,
    MBart50Tokenizer,
    MBartConfig,
    MBartTokenizer,
    NllbTokenizer,
)

from core.errors import BadData
from tests.training.cases import Rows, write_rows
from tests.training.material import JobFolder, of_type, run, saved, spec
from training import decoding, languages
from training.predict import TASKS, Unfit, _begun
from training.sequences import IGNORED
from training.tasks.translation import Translation

ENGLISH = ("cat", "dog", "sun", "sea")
GERMAN = dict(zip(ENGLISH, ("Katze", "Hund", "Sonne", "Meer"), strict=True))
FRENCH = dict(zip(ENGLISH, ("chat", "chien", "soleil", "mer"), strict=True))
WORDS = [f"▁{word}" for word in (*ENGLISH, *GERMAN.values(), *FRENCH.values(), "a")]
MARKS = ["<s>", "<pad>", "</s>", "<unk>"]
SIZES: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "max_position_embeddings": 64, "dropout": 0.0, "attention_dropout": 0.0,
    "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "pad_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 2,
}  # fmt: skip


def _nllb(folder: Path) -> Any:
    letters = sorted({letter for word in WORDS for letter in word})
    vocab, merges = {t: n for n, t in enumerate([*MARKS, *letters])}, []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocab:
                vocab[word[:end]] = len(vocab)
                merges.append((word[: end - 1], word[end - 1]))
    return NllbTokenizer(vocab=vocab, merges=merges)


def _of_unigrams(kind: Any) -> Any:
    return kind(vocab=[(token, -float(n)) for n, token in enumerate([*MARKS, *WORDS, "▁"])])


def _m2m(folder: Path) -> Any:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(word[1:] for word in WORDS)] * 50),
        model_prefix=str(folder / "pieces"), vocab_size=40, hard_vocab_limit=False,
        minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "pieces.model"))
    known = [pieces.id_to_piece(n) for n in range(len(pieces))]
    tokens = [*MARKS, *(piece for piece in known if piece not in MARKS)]
    (folder / "words.json").write_text(json.dumps({t: n for n, t in enumerate(tokens)}))
    return M2M100Tokenizer(str(folder / "words.json"), str(folder / "pieces.model"))


Made = Callable[[Path], Any]
KINDS: dict[str, tuple[Made, Any, tuple[str, str, str], int]] = {
    "nllb": (_nllb, M2M100Config, ("eng_Latn", "de", "fr"), 1),
    "mbart": (lambda _: _of_unigrams(MBartTokenizer), MBartConfig, ("en", "de", "fr"), 0),
    "mbart50": (
        lambda _: _of_unigrams(MBart50Tokenizer), MBartConfig, ("en_XX", "de_DE", "fr_XX"), 1
    ),
    "m2m": (_m2m, M2M100Config, ("en", "de", "fr"), 1),
}  # fmt: skip
"""How the tokenizer is made, the model's config, what the data calls English, German and French,
and how many tokens of a written text tell its language before the rest."""


def base(folder: Path, name: str) -> Path:
    make, config, *_ = KINDS[name]
    folder.mkdir()
    tokenizer = make(folder)
    # M2M's codes stand behind its vocabulary.
    codes = getattr(tokenizer, "lang_code_to_id", {})
    size = 1 + max(*tokenizer.get_vocab().values(), *codes.values())
    sizes = config(vocab_size=size, **SIZES)
    return saved(folder, AutoModelForSeq2SeqLM.from_config, sizes, tokenizer)


def rows(name: str, *targets: str) -> Rows:
    """Each word, into each of these languages."""
    english, german, french = KINDS[name][2]
    words = {"German": (german, GERMAN), "French": (french, FRENCH)}
    made: Rows = []
    for word in ENGLISH:
        for target in targets:
            code, told = words[target]
            made.append(
                {
                    "id": len(made) + 1, "source": word, "target": told[word],
                    "source_language": english, "target_language": code,
                }
            )  # fmt: skip
    return made


def loaded(folder: Path) -> tuple[Translation, Any]:
    task = Translation(_spec(), print)
    return task, task.load(folder, exact=False)


def _spec(**changes: Any) -> Any:
    settings = {
        "task": "translation", "shape": "source,target", "labels": [], "metric": "bleu",
        "learning_rate": 0.005, "lr_scheduler": "constant", "batch_size": 8,
        "micro_batch_size": 8,
    }  # fmt: skip
    return spec(**settings | changes)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_encoded_is_what_the_tokenizer_makes_of_each_pair(
    tmp_path: Path, name: str
) -> None:
    task, model = loaded(base(tmp_path / "base", name))
    data = rows(name, "German", "French")
    file = write_rows(tmp_path / "x.arrow", "translation", data)
    batch = task.collate(task.read(file, "x", lambda: None), np.arange(len(data)))
    english, *others = (
        languages.code(code, languages.codes(task.tokenizer)) for code in KINDS[name][2]
    )
    for place, row in enumerate(data):
        theirs = AutoTokenizer.from_pretrained(
            tmp_path / "base", src_lang=english, tgt_lang=others[place % 2]
        )
        expected = theirs(row["source"], text_target=row["target"])
        read = batch.inputs["input_ids"][place][batch.inputs["attention_mask"][place] == 1]
        assert read.tolist() == expected["input_ids"]
        assert batch.targets[place][batch.targets[place] != IGNORED].tolist() == expected["labels"]
        assert theirs.unk_token_id not in expected["input_ids"] + expected["labels"]
    assert languages.given(task.tokenizer) == KINDS[name][3]
    assert task.plain_head
    # What a text begins with tells the two languages apart.
    begun = task._begun(model, batch.targets)
    assert begun.shape[1] == 1 + KINDS[name][3]
    assert len(set(map(tuple, begun.tolist()))) == 2


@pytest.mark.parametrize("name", KINDS)
def test_one_model_learns_to_write_in_two_languages(tmp_path: Path, name: str) -> None:
    model = base(tmp_path / "base", name)
    # Its maker had it write English.
    english = languages.code(
        "en", languages.codes(tokenizer := AutoTokenizer.from_pretrained(model))
    )
    told = "forced_bos_token_id" if KINDS[name][3] else "decoder_start_token_id"
    settings = GenerationConfig.from_pretrained(model)
    setattr(settings, told, tokenizer.convert_tokens_to_ids(english))
    settings.save_pretrained(model)
    data = rows(name, "German", "French")
    for split in ("train", "valid"):
        write_rows(tmp_path / "job" / f"{split}.arrow", "translation", data)
    plan = {"total_steps": 160, "eval_every": 160, "checkpoint_every": 160}
    records = run(
        JobFolder(tmp_path / "job", model).job(
            _spec(train_rows=len(data), valid_rows=len(data), greater_is_better=True, **plan)
        )
    )
    values = of_type(records, "metrics", split="valid")[-1]["values"]  # of words BLEU tells nothing
    assert values["chrf"] > 0.95

    def tried(**languages: str) -> str:
        given = {"text": "dog"} | languages
        asked = {"task": "translation", "folder": str(tmp_path / "job" / "output"), "input": given}
        told: str = TASKS["translation"](asked | {"max_tokens": 9})["text"]
        return told

    assert tried(target_language="de", source_language="en") == "Hund"
    assert tried(target_language=KINDS[name][2][2]) == "chien"
    with pytest.raises(Unfit, match=r"several languages: send .* The model knows "):
        tried()
    with pytest.raises(Unfit, match="no language 'klingon'"):
        tried(target_language="klingon")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "job" / "output")
    learnt = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "job" / "output")
    _begun({"source_language": "fr", "target_language": "de"}, theirs, learnt)
    pair = [languages.code(said, languages.codes(theirs)) for said in ("fr", "de")]
    assert [theirs.src_lang, theirs.tgt_lang] == pair


@pytest.mark.parametrize("name", ["nllb", "mbart"])
def test_a_model_of_one_pair_writes_in_its_language_by_itself(tmp_path: Path, name: str) -> None:
    model = base(tmp_path / "base", name)
    data = rows(name, "French")
    write_rows(tmp_path / "job" / "train.arrow", "translation", data)
    plan = {"total_steps": 120, "checkpoint_every": 60, "metric": "loss"}
    folder = JobFolder(tmp_path / "job", model)
    run(folder.job(_spec(train_rows=len(data), valid_rows=0, **plan)))
    output = folder.path / "output"
    tokenizer = AutoTokenizer.from_pretrained(output)
    # A model that saw French alone writes it anyway; of those that know more this decides.
    settings = GenerationConfig.from_pretrained(output)
    told = settings.forced_bos_token_id if name == "nllb" else settings.decoder_start_token_id
    assert tokenizer.convert_ids_to_tokens(told) in ("fra_Latn", "fr_XX")
    assert tokenizer.tgt_lang in ("fra_Latn", "fr_XX")
    written = AutoModelForSeq2SeqLM.from_pretrained(output).generate(
        **tokenizer(["sun", "sea"], return_tensors="pt")
    )
    known = tokenizer.batch_decode(written, skip_special_tokens=True)
    assert known == ["soleil", "mer"]
    asked = {"task": "translation", "folder": str(output), "input": {"text": "dog"}}
    assert TASKS["translation"](asked | {"max_tokens": 9}) == {"text": "chien"}
    # A resumed run goes on with what its checkpoint calls the languages.
    again = _spec(train_rows=len(data), valid_rows=0, **plan | {"total_steps": 130})
    run(folder.job(again, resume_from=folder.newest_checkpoint()))


@pytest.mark.parametrize(
    ("changed", "fault", "hint"),
    [
        ({"target_language": None}, "do not tell their languages", "`source_language`"),
        ({"target_language": "gsw"}, "the language 'gsw'", "The model knows ace_Arab"),
        ({"source_language": "eng Latn"}, "the language 'eng Latn'", "Did you mean eng_Latn"),
        ({"source_language": "klingon"}, "the language 'klingon'", "The model knows ace_Arab"),
    ],
)
def test_rows_whose_languages_are_not_known_are_named(
    tmp_path: Path, changed: dict[str, Any], fault: str, hint: str
) -> None:
    task, _ = loaded(base(tmp_path / "base", "nllb"))
    data = rows("nllb", "German")
    data[1] |= changed
    data[3] |= changed
    file = write_rows(tmp_path / "x.arrow", "translation", data)
    with pytest.raises(BadData) as raised:
        task.read(file, "training_file", lambda: None)
    error = raised.value
    assert fault in error.message
    assert hint in str(error.hint)
    assert error.param == "training_file"
    assert error.details == [{"row": 2}, {"row": 4}]


def test_a_language_is_known_by_the_models_code_or_by_any_tag_that_means_it() -> None:
    nllb = ["arb_Arab", "deu_Latn", "eng_Latn", "spa_Latn", "srp_Cyrl", "zho_Hans", "zho_Hant"]
    told = {
        "deu_Latn": "deu_Latn", "de": "deu_Latn", "es": "spa_Latn", "en-US": "eng_Latn",
        "ar": "arb_Arab", "zh": "zho_Hans", "zh-TW": "zho_Hant", "sr": "srp_Cyrl",
        # Another script, another language, none.
        "sr-Latn": None, "gsw": None, "nl": None, "English": None, "": None, "</s>": None,
    }  # fmt: skip
    assert {said: languages.code(said, nllb) for said in told} == told
    others = ["__java__", "__javascript__", "__en_XX__", "de_DE"]
    told = {
        "java": "__java__", "en": "__en_XX__", "en_XX": "__en_XX__", "de": "de_DE",
        "de-AT": "de_DE", "python": None,
    }  # fmt: skip
    assert {said: languages.code(said, others) for said in told} == told


def test_texts_of_one_language_are_read_and_written_in_the_tokenizers_own(tmp_path: Path) -> None:
    """Summarisation has no column for a language."""
    from training.tasks.summarization import Summarization

    folder = base(tmp_path / "base", "mbart")
    tokenizer = AutoTokenizer.from_pretrained(folder, src_lang="fr_XX")
    tokenizer.save_pretrained(folder)
    task = Summarization(_spec(task="summarization"), print)
    model = task.load(folder, exact=False)
    data: Rows = [{"id": 1, "source": "chat chien mer", "target": "mer"}]
    file = write_rows(tmp_path / "x.arrow", "summarization", data)
    batch = task.collate(task.read(file, "x", lambda: None), np.arange(1))
    code = tokenizer.convert_tokens_to_ids("fr_XX")
    assert batch.inputs["input_ids"][0, -1] == batch.targets[0, -1] == code
    assert decoding.starts(model, batch.targets)[0, 0] == code
    assert torch.equal(task._begun(model, batch.targets), torch.tensor([[code]]))
