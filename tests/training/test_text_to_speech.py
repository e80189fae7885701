from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, SpeechT5ForTextToSpeech

from core.errors import BadData
from tests.training.cases import CASES, Rows, write_rows
from tests.training.material import run
from tests.training.sounds import row_of, tiny_speecht5, voices
from training import tasks
from training.tasks.base import Batch
from training.tasks.text_to_speech import TextToSpeech

CASE = next(case for case in CASES if case.name == "voices")


def loaded(folder: Path, **config: Any) -> tuple[TextToSpeech, Any]:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    task = tasks.create(CASE.spec(), lambda message: None)
    assert isinstance(task, TextToSpeech)
    return task, task.load(folder, exact=False).eval()


def batch_of(task: TextToSpeech, path: Path, rows: Rows) -> Batch:
    file = write_rows(path / "x.arrow", CASE.task, rows)
    return task.collate(task.read(file, "f", lambda: None), np.arange(len(rows)))


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("step", [1, 2])
def test_a_row_alone_has_the_loss_of_the_models_class(
    tmp_path: Path, guided: bool, step: int
) -> None:
    base = tiny_speecht5(tmp_path / "base")
    changes = {
        "use_guided_attention_loss": guided,
        "reduction_factor": step,
        "speech_decoder_prenet_dropout": 0.5,
    }
    config = json.loads((base / "config.json").read_text()) | changes
    torch.manual_seed(0)
    model_config = SpeechT5ForTextToSpeech.config_class(**config)
    SpeechT5ForTextToSpeech(model_config).save_pretrained(base)
    task, model = loaded(base)
    for row in voices(3, 5):
        batch = batch_of(task, tmp_path, [row])
        with torch.no_grad():
            ours = task.loss(model, batch)
            torch.manual_seed(task.spec.seed)
            theirs = model(**batch.inputs, labels=batch.targets).loss
        assert float(ours.sum / ours.count) == pytest.approx(float(theirs), rel=1e-4)


def test_an_evaluation_says_the_same_twice(tmp_path: Path) -> None:
    """Though the decoder's first layers drop out in it as well."""
    base = tiny_speecht5(tmp_path / "base")
    task, model = loaded(base, speech_decoder_prenet_dropout=0.5)
    batch = batch_of(task, tmp_path, voices(3, 5))
    with torch.no_grad():
        first, second = (float(task.loss(model, batch).sum) for _ in range(2))
        assert first == second
        model.train()
        model.speecht5.eval()
        third, fourth = (float(task.loss(model, batch).sum) for _ in range(2))
    assert third != fourth


def test_each_speaker_has_a_voice_that_goes_with_the_output(tmp_path: Path) -> None:
    folder = CASE.folder(tmp_path / "job")
    run(folder.job(CASE.spec(total_steps=2, eval_every=2)))
    output = folder.path / "output"
    speakers = load_file(output / "speakers.safetensors")
    assert set(speakers) == {"ann", "bob", "speaker"}
    assert not torch.equal(speakers["ann"], speakers["bob"])
    again, _ = loaded(output)
    assert torch.equal(again.speakers["ann"], speakers["ann"])
    assert torch.equal(again._speaker("ann"), speakers["ann"])
    model = SpeechT5ForTextToSpeech.from_pretrained(output)
    tokens = AutoTokenizer.from_pretrained(output)("abc", return_tensors="pt")
    spoken = model.generate(**tokens, speaker_embeddings=speakers["ann"][None], maxlenratio=2.0)
    assert spoken.shape[1] == 20
    assert torch.isfinite(spoken).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"max_text_positions": 3}, "3 tokens"), ({"max_speech_positions": 5}, "0 seconds")],
)
def test_what_is_too_long_is_named(tmp_path: Path, changes: dict[str, int], reason: str) -> None:
    task, _ = loaded(tiny_speecht5(tmp_path / "base"))
    for name, value in changes.items():
        setattr(task.config, name, value)
    rows = [row_of(1, "a") | {"text": "a"}, row_of(2, "abcabc") | {"text": "abcabc"}]
    with pytest.raises(BadData, match=reason) as caught:
        batch_of(task, tmp_path, rows)
    assert {"row": 2} in caught.value.details
