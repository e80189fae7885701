"""What is done to recordings while a model learns, SpecAugment among it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import InvalidRequest
from models.augmentation import Augmentation
from tests.training.cases import CASES
from tests.training.material import StopAfter, fresh_copy, run, weights_of
from tests.training.sounds import MODEL_RATE, tiny_ctc
from training import dropout, hearing, tasks
from training.spans import Axis

BY_NAME = {case.name: case for case in CASES}
SOUND: dict[str, Any] = {"audio_shift": 0.05, "audio_snr": 10.0}
LOUD = SOUND | {"audio_gain": 6.0}
HIDDEN: dict[str, Any] = {"time_masking": 0.3, "frequency_masking": 0.3}


def loaded(path: Path, name: str, **asked: Any) -> tuple[Any, Any, Any]:
    """A task, its model while it learns, and its training rows."""
    case = BY_NAME[name]
    folder = case.folder(path)
    task: Any = tasks.create(case.spec(**asked), lambda message: None)
    model = task.load(folder.model, exact=False).train()
    return task, model, task.read(folder.path / "train.arrow", "training_file", lambda: None)


def of_row(batch: Any, row: int) -> list[Any]:
    """What a batch has of a row, without padding at the end."""
    found = []
    for name in sorted(batch.inputs):
        values = batch.inputs[name][row].numpy()
        found.append(np.trim_zeros(values, "b").tobytes() if values.ndim == 1 else values.tobytes())
    return found


@pytest.mark.parametrize(
    ("name", "asked"),
    [("ctc", SOUND | HIDDEN), ("sounds", SOUND), ("sounds", HIDDEN), ("whisper", LOUD | HIDDEN),
     ("spectra", HIDDEN)],
)  # fmt: skip
def test_what_is_heard_depends_on_seed_epoch_and_row_alone(
    tmp_path: Path, name: str, asked: dict[str, Any]
) -> None:
    task, _, examples = loaded(tmp_path, name, **asked)
    rows = np.array([4, 11, 2])
    heard = task.collate(examples, rows, 3)
    alone = task.collate(examples, rows[1:2], 3)
    assert of_row(heard, 1) == of_row(alone, 0)
    others = [task.collate(examples, rows, 4), task.collate(examples, rows)]
    assert all(of_row(other, 1) != of_row(heard, 1) for other in others)
    # An evaluation hears them as they are.
    assert set(others[1].inputs) == set(task.collate(examples, rows, None).inputs)
    plain = tasks.create(BY_NAME[name].spec(), lambda message: None)
    plain.load(tmp_path / "base", exact=False)
    assert of_row(plain.collate(examples, rows), 1) == of_row(others[1], 1)


def test_gain_shift_and_noise_are_as_large_as_was_asked_for() -> None:
    draw = np.random.default_rng(0)
    whole = draw.normal(0, 0.1, 4000).astype(np.float32)

    def heard(room: int | None = None, **asked: Any) -> list[Any]:
        settings = Augmentation(**asked)
        return [hearing.heard(whole, 1000, settings, [0, 0, row], room=room) for row in range(60)]

    gains = [20 * np.log10(np.abs(one).max() / np.abs(whole).max()) for one in heard(audio_gain=9)]
    assert -9.01 < min(gains) < -7
    assert 7 < max(gains) < 9.01
    noises = [one - whole for one in heard(audio_snr=12)]
    ratios = [10 * np.log10(np.mean(whole**2) / np.mean(noise**2)) for noise in noises]
    assert 11.5 < min(ratios) < 15
    assert 39 < max(ratios) < 42.5
    moved = heard(audio_shift=0.5)
    assert {len(one) for one in moved} == {4000}
    first = [int(np.flatnonzero(one)[0]) for one in moved]
    assert 400 < max(first) <= 500
    assert sum(one[-1] == 0 for one in moved) > 15
    # Where nothing may be lost the recording is whole, later, and no longer than it may be.
    for one in heard(room=4100, audio_shift=0.5):
        assert 4000 <= len(one) <= 4100
        assert np.array_equal(one[-4000:], whole)


def test_silence_stays_silence() -> None:
    silence = np.zeros(100, np.float32)
    found = hearing.heard(silence, 1000, Augmentation(audio_snr=0), [0, 0, 1], room=None)
    assert not found.any()


def test_spans_hide_the_share_that_was_asked_for_and_no_short_row_whole() -> None:
    axis = Axis(0.3, 5, 2)
    hidden = [axis.drawn(100, np.random.default_rng(row)) for row in range(200)]
    # They may overlap, so that it is somewhat less.
    assert 0.22 < np.mean(hidden) < 0.3
    assert not axis.drawn(4, np.random.default_rng(0)).any()
    assert axis.drawn(6, np.random.default_rng(0)).sum() == 5
    assert not Axis(0.0, 5, 2).drawn(100, np.random.default_rng(0)).any()


@pytest.mark.parametrize("name", ["ctc", "whisper"])
def test_a_model_hides_what_it_is_told_and_nothing_of_its_own(tmp_path: Path, name: str) -> None:
    """What transformers would draw by itself would differ from pass to pass."""
    task, model, examples = loaded(tmp_path, name, **HIDDEN)
    dropout.override(model, 0.0)
    model.config.apply_spec_augment, model.config.mask_feature_prob = True, 0.5
    batches = [task.collate(examples, np.arange(4), epoch) for epoch in (0, 0, 1, None)]
    with torch.no_grad():
        losses = [float(task.loss(model, batch).sum) for batch in batches]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_the_models_own_config_says_what_is_hidden_unless_the_spec_does(tmp_path: Path) -> None:
    base = tiny_ctc(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    for own, asked, there in ((0.2, None, True), (0.2, 0.0, False), (0.0, 0.3, True)):
        (base / "config.json").write_text(json.dumps(config | {"mask_time_prob": own}))
        task: Any = tasks.create(BY_NAME["ctc"].spec(time_masking=asked), lambda message: None)
        model = task.load(base, exact=False).train()
        file = BY_NAME["ctc"].folder(tmp_path / f"job-{own}-{asked}").path / "train.arrow"
        examples = task.read(file, "training_file", lambda: None)
        batch = task.collate(examples, np.arange(4), 0)
        assert ("frames" in batch.inputs and bool(batch.inputs["frames"].any())) is there
        assert torch.isfinite(task.loss(model, batch).sum)


def test_whisper_hears_no_more_than_its_window(tmp_path: Path) -> None:
    task, _, examples = loaded(tmp_path, "whisper", audio_shift=5.0)
    heard = task.heard(examples, np.arange(20), 0)
    longest = max(map(len, heard))
    assert max(examples.lengths[:20]) < longest <= MODEL_RATE


@pytest.mark.parametrize("name", ["ctc", "spectra"])
def test_a_stopped_and_resumed_run_ends_in_the_same_bits(tmp_path: Path, name: str) -> None:
    case = BY_NAME[name]
    sound = SOUND if name == "ctc" else LOUD
    plan = case.spec(total_steps=10, eval_every=10, checkpoint_every=100, **sound, **HIDDEN)
    folder = case.folder(tmp_path / "job")
    run(folder.job(plan))
    broken = fresh_copy(folder, tmp_path / "broken")
    run(broken.job(plan), StopAfter(broken, 4))
    run(broken.job(plan, resume_from=broken.newest_checkpoint()))
    assert weights_of(broken.path / "output") == weights_of(folder.path / "output")


def test_a_gain_that_the_extractor_takes_out_again_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="one loudness") as caught:
        loaded(tmp_path / "waves", "ctc", audio_gain=3.0)
    assert caught.value.param == "audio_gain"
    task, _, examples = loaded(tmp_path / "spectra", "spectra", audio_gain=12.0)
    first, other = (task.collate(examples, np.arange(1), epoch) for epoch in (0, 1))
    assert not torch.equal(first.inputs["input_values"], other.inputs["input_values"])
