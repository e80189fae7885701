from __future__ import annotations

import json
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCTC,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperForConditionalGeneration,
)

from core.errors import BadData
from tests.training.cases import CASES, Rows, write_rows
from tests.training.material import JobFolder, of_type, run, saved
from tests.training.sounds import (
    MODEL_RATE,
    listener,
    row_of,
    spoken,
    tiny_ctc,
    wav,
    wav2vec2_config,
)
from training import spelling, tasks
from training.audio import decode
from training.failures import ModelUnavailable
from training.sequences import IGNORED
from training.tasks.automatic_speech_recognition import SpeechRecognition
from training.tasks.base import Batch, Loss
from training.transcripts import ErrorRates

BY_NAME = {case.name: case for case in CASES}

PLAIN_TRANSFORMERS = """
import json, sys, soundfile, torch
from scipy.signal import resample_poly
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer
folder, *files = sys.argv[1:]
extractor = AutoFeatureExtractor.from_pretrained(folder)
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCTC.from_pretrained(folder)
answers = []
for file in files:
    samples, rate = soundfile.read(file, dtype="float32")
    samples = resample_poly(samples, extractor.sampling_rate, rate)
    inputs = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    answers.append([logits.tolist(), tokenizer.decode(logits.argmax(dim=-1))])
print(json.dumps(answers))
"""


def loaded(folder: Path, name: str) -> tuple[SpeechRecognition, Any]:
    task = tasks.create(BY_NAME[name].spec(), lambda message: None)
    assert isinstance(task, SpeechRecognition)
    return task, task.load(folder, exact=False).eval()


def batch_of(task: SpeechRecognition, path: Path, rows: Rows) -> Batch:
    file = write_rows(path / "x.arrow", "automatic-speech-recognition", rows)
    return task.collate(task.read(file, "training_file", lambda: None), np.arange(len(rows)))


def test_a_plain_script_hears_what_the_engine_hears(tmp_path: Path) -> None:
    folder = BY_NAME["ctc"].folder(tmp_path / "job")
    run(folder.job(BY_NAME["ctc"].spec(total_steps=6)))
    output, rows = folder.path / "output", spoken(4, 9)
    files = [tmp_path / row["file"] for row in rows]
    for file, row in zip(files, rows, strict=True):
        file.write_bytes(row["audio"])
    answer = subprocess.run(
        [sys.executable, "-c", PLAIN_TRANSFORMERS, str(output), *map(str, files)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    task = tasks.create(BY_NAME["ctc"].spec(), print)
    model = task.load(output, exact=True).eval()
    batch = batch_of(task, tmp_path, rows)  # type: ignore[arg-type]
    with torch.inference_mode():
        engine, told = model(**batch.inputs).logits, task.loss(model, batch).outputs
    for place, (logits, text) in enumerate(json.loads(answer.stdout.splitlines()[-1])):
        ours = engine[place, : len(logits)]
        assert float((ours - torch.tensor(logits)).abs().max()) < 1e-4
        assert task.tokenizer.decode(told[place]) == text  # type: ignore[attr-defined]


def test_the_loss_of_ctc_is_that_of_the_models_class(tmp_path: Path) -> None:
    task, model = loaded(tiny_ctc(tmp_path / "base"), "ctc")
    batch = batch_of(task, tmp_path, spoken(5, 2))
    model.config.ctc_loss_reduction = "sum"
    with torch.no_grad():
        ours = task.loss(model, batch)
        theirs = model(**batch.inputs, labels=batch.targets).loss
    assert float(ours.sum) == pytest.approx(float(theirs), rel=1e-5)
    assert ours.count == int((batch.targets != IGNORED).sum())


def test_a_row_that_says_more_than_it_has_frames_for_is_named(tmp_path: Path) -> None:
    """Equal characters in a row need a frame between them as well."""
    task, _ = loaded(tiny_ctc(tmp_path / "base"), "ctc")
    frames = task.frames(400)
    rows = [row_of(row, "a") for row in (1, 2, 3)]
    fits, repeats, longer = "ab" * frames, "a" * frames, "ab" * frames
    texts = [fits[:frames], repeats[: frames // 2 + 2], longer[: frames + 1]]
    rows = [row | {"text": text} for row, text in zip(rows, texts, strict=True)]
    with pytest.raises(BadData, match="frames") as caught:
        batch_of(task, tmp_path, rows)
    assert caught.value.details == [{"row": 2}, {"row": 3}]


def test_a_model_that_only_listened_gets_the_characters_of_the_training_file(
    tmp_path: Path,
) -> None:
    base = listener(tmp_path / "base")
    for name, count, seed in (("train", 16, 0), ("valid", 8, 1)):
        rows = [row | {"text": f"é {row['text']}"} for row in spoken(count, seed)]
        write_rows(tmp_path / f"{name}.arrow", "automatic-speech-recognition", rows)
    folder = JobFolder(tmp_path, base)
    spec = BY_NAME["ctc"].spec(total_steps=4, eval_every=2, checkpoint_every=2)
    run(folder.job(spec))
    vocabulary = json.loads((tmp_path / "output" / "vocab.json").read_text())
    assert vocabulary == {
        name: place for place, name in enumerate(["[PAD]", "[UNK]", "|", "a", "b", "c", "é"])
    }
    assert AutoModelForCTC.from_pretrained(tmp_path / "output").lm_head.out_features == 7
    # A resume takes the checkpoint's, whatever the file says by then.
    resumed = run(folder.job(spec, resume_from=tmp_path / "checkpoints" / "step-2"))
    assert of_type(resumed, "done")
    with pytest.raises(ModelUnavailable, match="without the characters"):
        loaded(base, "ctc")


def test_texts_are_spelled_in_the_case_that_the_model_writes(tmp_path: Path) -> None:
    task, _ = loaded(tiny_ctc(tmp_path), "ctc")
    assert spelling.spelled("ab cé", task.tokenizer) == "AB Cé"


def test_the_start_that_the_decoder_adds_is_not_learnt_twice(tmp_path: Path) -> None:
    """The start is neither BOS nor what the text begins with."""
    task, model = loaded(BY_NAME["whisper"].base(tmp_path / "base"), "whisper")
    batch = batch_of(task, tmp_path, spoken(3, 2))
    vocabulary = task.tokenizer.get_vocab()
    assert task.tokenizer.bos_token_id != model.config.decoder_start_token_id
    assert batch.targets[:, 0].tolist() == [vocabulary["<plain>"]] * 3
    assert vocabulary["<start>"] not in batch.targets
    ends = [row[row != IGNORED][-1].item() for row in batch.targets]
    assert ends == [vocabulary["<end>"]] * 3


def test_what_is_written_is_what_the_model_finds_likeliest(tmp_path: Path) -> None:
    task, model = loaded(BY_NAME["whisper"].base(tmp_path / "base"), "whisper")
    batch = batch_of(task, tmp_path, spoken(3, 2))
    with torch.no_grad():
        written = task.loss(model, batch).outputs
        for place, row in enumerate(written):
            for length in range(2, written.shape[1]):
                if task.tokenizer.eos_token_id in row[2:length]:
                    break
                features = batch.inputs["input_features"][place : place + 1]
                logits = model(features, decoder_input_ids=row[None, :length]).logits
                assert int(logits[0, -1].argmax()) == int(row[length])


@pytest.mark.parametrize(
    ("seconds", "text", "reason"), [(1.2, "a", "1 seconds"), (0.5, "a" * 30, "16 tokens")]
)
def test_what_whisper_cannot_take_is_named(
    tmp_path: Path, seconds: float, text: str, reason: str
) -> None:
    task, _ = loaded(BY_NAME["whisper"].base(tmp_path / "base"), "whisper")
    row = row_of(7, "a" * round(seconds * 10)) | {"text": text}
    with pytest.raises(BadData, match=reason) as caught:
        batch_of(task, tmp_path, [row])
    assert caught.value.details == [{"row": 7}]


def test_sound_is_brought_to_one_channel_and_the_models_rate() -> None:
    time = np.arange(8000) / 8000
    stereo = np.stack([np.sin(2 * np.pi * 440 * time), np.zeros(8000)], axis=1) * 0.5
    heard = decode(wav(stereo), 16000)
    assert heard.dtype == np.float32
    assert len(heard) == 16000
    wanted = 0.25 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(heard - wanted)[100:-100].max() < 0.01
    # What the lower rate cannot carry is left out, not folded back.
    high = decode(wav(0.5 * np.sin(2 * np.pi * 3500 * time)), 4000)
    assert np.abs(high[100:-100]).max() < 0.02


def test_error_rates_are_over_all_rows_together() -> None:
    said = ["a b c d", "hello there", "x"]
    written = ["a b d", "hello their", "x y z"]
    metric = ErrorRates()
    for place in range(3):
        metric.update(written[place : place + 1], said[place : place + 1])
    rates = metric.compute()
    assert float(rates["wer"]) == pytest.approx(jiwer.wer(said, written))
    assert float(rates["cer"]) == pytest.approx(jiwer.cer(said, written))


def test_the_blank_between_equal_characters_keeps_them_apart(tmp_path: Path) -> None:
    task, _ = loaded(tiny_ctc(tmp_path / "base"), "ctc")
    told = task.tokenizer.convert_tokens_to_ids(["A", "A", "[PAD]", "A", "|", "B", "[PAD]"])
    loss = Loss(torch.zeros(()), 1, torch.tensor([told]), {})
    assert task.told(loss, Batch({}, torch.zeros(1), 1)) == ["AA B"]


def test_a_wave_is_brought_to_its_own_mean_and_variance(tmp_path: Path) -> None:
    """Whatever it is padded to, and also where the model takes no mask."""
    base = tiny_ctc(tmp_path / "base")
    config = wav2vec2_config()
    config.feat_extract_norm, config.do_stable_layer_norm = "group", False
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=MODEL_RATE, return_attention_mask=False)
    saved(base, Wav2Vec2ForCTC, config, extractor)
    task, _ = loaded(base, "ctc")
    rows = [row_of(1, "ab") | {"text": "ab"}, row_of(2, "abcabcab") | {"text": "abc"}]
    heard = batch_of(task, tmp_path, rows)
    assert "attention_mask" not in heard.inputs
    for values, row in zip(heard.inputs["input_values"], rows, strict=True):
        alone = extractor(decode(row["audio"], MODEL_RATE), sampling_rate=MODEL_RATE)
        own = torch.tensor(alone["input_values"][0])
        assert torch.equal(values[: len(own)], own)
        assert not values[len(own) :].any()


def test_a_whisper_of_many_languages_generates_as_it_learnt(tmp_path: Path) -> None:
    """It would guess a language and put it before the text, where the transcripts have none."""
    base = BY_NAME["whisper"].base(tmp_path / "base")
    path = base / "generation_config.json"
    many = {"lang_to_id": {"<|aa|>": 4}, "task_to_id": {"transcribe": 5}, "is_multilingual": True,
            "no_timestamps_token_id": 3, "forced_decoder_ids": [[1, None], [2, 5]],
            "_from_model_config": False}  # fmt: skip
    path.write_text(json.dumps(json.loads(path.read_text()) | many))
    task, model = loaded(base, "whisper")
    task.save(model, tmp_path / "out")
    plain = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    seen: list[Any] = []
    plain.model.decoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    batch = batch_of(task, tmp_path, spoken(1, 2))
    plain.generate(batch.inputs["input_features"], max_new_tokens=2)
    vocabulary = task.tokenizer.get_vocab()
    assert seen[0] == [[vocabulary["<start>"], vocabulary["<plain>"]]]


def test_what_generate_suppresses_is_not_written_in_an_evaluation_either(tmp_path: Path) -> None:
    base = BY_NAME["whisper"].base(tmp_path / "base")
    drawn = WhisperForConditionalGeneration.from_pretrained(base)
    # Or it would go on with whatever it told first.
    torch.manual_seed(4)
    torch.nn.init.normal_(drawn.model.decoder.embed_positions.weight)
    drawn.save_pretrained(base)
    path = base / "generation_config.json"
    vocabulary = {token: place for place, token in enumerate(["<end>", "<pad>", "<start>"])}

    def written(**chosen: Any) -> tuple[list[list[int]], list[list[int]]]:
        """By the engine, and by plain transformers of what it saved: what stands before the end."""
        many = {"lang_to_id": {"<|aa|>": 4}, "is_multilingual": True, "_from_model_config": False}
        path.write_text(json.dumps(json.loads(path.read_text()) | many | chosen))
        task, model = loaded(base, "whisper")
        batch = batch_of(task, tmp_path, spoken(6, 2))
        with torch.no_grad():
            ours = task.loss(model, batch).outputs[:, 2:]
        task.save(model, tmp_path / "out")
        plain = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
        features = batch.inputs["input_features"]
        theirs = plain.generate(features, max_new_tokens=task.longest)
        ends = (vocabulary["<end>"], vocabulary["<pad>"])
        return tuple(  # type: ignore[return-value]
            [list(takewhile(lambda token: token not in ends, row)) for row in rows.tolist()]
            for rows in (ours, theirs)
        )

    free, theirs = written()
    assert free == theirs
    # What is told first, and once more later; and what else there is.
    first = free[0][0]
    assert first in free[0][1:]
    later = next(token for token in free[0] if token != first)
    for chosen in (
        {"suppress_tokens": [later]},
        {"begin_suppress_tokens": [first, vocabulary["<end>"]]},
        {"suppress_tokens": [first], "begin_suppress_tokens": [vocabulary["<end>"], later]},
    ):
        ours, theirs = written(**{"suppress_tokens": None, "begin_suppress_tokens": None, **chosen})
        assert ours == theirs
        assert ours != free


def test_a_head_with_a_place_that_no_character_needs_stays(tmp_path: Path) -> None:
    base = tiny_ctc(tmp_path / "base")
    config = wav2vec2_config()
    config.vocab_size = 8
    saved(base, Wav2Vec2ForCTC, config)
    _, model = loaded(base, "ctc")
    plain = AutoModelForCTC.from_pretrained(base)
    assert torch.equal(model.lm_head.weight, plain.lm_head.weight)
