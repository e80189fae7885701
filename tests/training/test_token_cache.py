from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.cases import CASES, Case
from tests.training.material import JobFolder, run, spec, weights_of
from training import tasks, token_cache
from training.sequences import Sequences
from training.tasks.text import TextTask

TEXT = [
    case for case in CASES
    if case.task.split("-")[0] not in ("image", "object", "audio", "automatic")
    and case.task != "text-to-speech" and case.changes.get("tuning") != "lora"
]  # fmt: skip


def loaded(case: Case, base: Path, cache: Path | None, **asked: Any) -> Any:
    task = tasks.create(case.spec(**asked), lambda message: None)
    task.load(base, exact=False)
    task.cache = cache
    return task


def forbidden(*args: Any) -> Any:
    raise AssertionError("encoded although it was there")


@pytest.mark.parametrize("case", TEXT, ids=lambda case: case.name)
def test_batches_of_kept_rows_are_those_of_rows_encoded_now(tmp_path: Path, case: Case) -> None:
    folder, kept = case.folder(tmp_path), tmp_path / "kept"
    plain = loaded(case, folder.model, None)
    task = loaded(case, folder.model, kept)
    assert isinstance(task, TextTask)
    for name in ("train", "valid"):
        path = folder.path / f"{name}.arrow"
        before, first = (t.read(path, name, lambda: None) for t in (plain, task))
        task.encode, encode = forbidden, task.encode
        again = task.read(path, name, lambda: None)
        task.encode = encode
        # Mapped, not loaded.
        assert not any(values.flags.writeable for values in again.tokens.values())
        rows = np.array([5, 0, 11])
        for epoch in (None, 1):
            wanted, *found = (
                plain.collate(examples, rows, epoch) for examples in (before, first, again)
            )
            for batch in found:
                assert batch.inputs.keys() == wanted.inputs.keys()
                for key, tensor in wanted.inputs.items():
                    assert torch.equal(batch.inputs[key], tensor)
                assert torch.equal(batch.targets, wanted.targets)
                assert batch.tokens == wanted.tokens
                assert len(batch.references) == len(wanted.references)
                for one, other in zip(batch.references, wanted.references, strict=True):
                    assert str(one) == str(other)
        assert np.array_equal(before.lengths, again.lengths)
        assert again.lengths.dtype == before.lengths.dtype
    assert getattr(task, "longest_target", 0) == getattr(plain, "longest_target", 0)
    assert len(list(kept.iterdir())) == 2


@pytest.fixture
def case() -> Case:
    return next(case for case in CASES if case.name == "many-labels")


def test_another_encoding_has_another_file(tmp_path: Path, case: Case) -> None:
    folder, kept = case.folder(tmp_path), tmp_path / "kept"
    train = folder.path / "train.arrow"

    def files_after(task: Any, path: Path = train) -> int:
        task.read(path, "training_file", lambda: None)
        return len(list(kept.iterdir()))

    assert files_after(loaded(case, folder.model, kept)) == 1
    assert files_after(loaded(case, folder.model, kept, learning_rate=0.5, seed=9)) == 1
    assert files_after(loaded(case, folder.model, kept, max_length=8)) == 2
    assert files_after(loaded(case, folder.model, kept, labels=["good", "bad"])) == 3
    assert files_after(loaded(case, folder.model, kept), folder.path / "valid.arrow") == 4
    other = loaded(case, folder.model, kept)
    other.tokenizer.add_tokens(["awful scene"])
    assert files_after(other) == 5
    other = loaded(case, folder.model, kept)
    other.tokenizer.truncation_side = "left"
    assert files_after(other) == 6


def test_chats_that_tell_the_date_have_a_file_for_each_day(tmp_path: Path) -> None:
    chats = next(case for case in CASES if case.name == "chats")
    folder = chats.folder(tmp_path)
    for name, dates, files in (("dated", "{{ strftime_now('%Y') }}", 2), ("plain", "", 1)):
        for day in ("2024-02-29", "2024-03-01"):
            task = loaded(chats, folder.model, tmp_path / name, day=day)
            task.tokenizer.chat_template = dates + task.tokenizer.chat_template
            task.read(folder.path / "train.arrow", "training_file", lambda: None)
        assert len(list((tmp_path / name).iterdir())) == files


def test_a_resume_finds_what_the_first_attempt_left(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint's tokenizer is not written as the base model's, and is the same."""
    plan = spec(total_steps=6, checkpoint_every=3, eval_every=100)
    run(folder.job(plan))
    without = weights_of(folder.path / "output")
    kept = tmp_path / "kept"

    def job(**asked: Any) -> Any:
        return folder.job(plan, **asked).model_copy(update={"token_cache": kept})

    run(job())
    assert len(list(kept.iterdir())) == 2
    monkeypatch.setattr("training.tasks.text_classification.TextClassification.encode", forbidden)
    run(job(resume_from=folder.path / "checkpoints" / "step-3"))
    assert weights_of(folder.path / "output") == without


@pytest.mark.parametrize("harm", ["rotten", "cut off"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, case: Case, harm: str) -> None:
    folder, kept = case.folder(tmp_path), tmp_path / "kept"
    train = folder.path / "train.arrow"
    before = loaded(case, folder.model, None).read(train, "training_file", lambda: None)
    task = loaded(case, folder.model, kept)
    task.read(train, "training_file", lambda: None)
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 2
    rotten = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    file.write_bytes(rotten if harm == "rotten" else whole[:middle])
    again = task.read(train, "training_file", lambda: None)
    for name, values in before.tokens.items():
        assert np.array_equal(again.tokens[name], values)
    assert [path.read_bytes() for path in kept.iterdir()] == [whole]


def test_a_disk_that_takes_nothing_costs_the_file_alone(tmp_path: Path, case: Case) -> None:
    folder = case.folder(tmp_path)
    told: list[str] = []
    task = loaded(case, folder.model, tmp_path / "train.arrow" / "no folder")
    task.log = told.append
    examples = task.read(folder.path / "train.arrow", "training_file", lambda: None)
    assert len(examples.ids) == 64
    assert any("could not be kept" in line for line in told)


def test_what_is_used_is_marked_as_used_and_half_a_file_is_none(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, kept = case.folder(tmp_path), tmp_path / "kept"
    train = folder.path / "train.arrow"
    task = loaded(case, folder.model, kept)
    task.read(train, "training_file", lambda: None)
    (file,) = kept.iterdir()
    os.utime(file, (1, 1))
    task.read(train, "training_file", lambda: None)
    assert file.stat().st_mtime > 1e9

    def full(examples: Sequences, pack: Any) -> Any:
        raise OSError("no space left")

    monkeypatch.setattr(token_cache, "_batch", full)
    shorter = loaded(case, folder.model, kept, max_length=9)
    shorter.read(train, "training_file", lambda: None)
    assert list(kept.iterdir()) == [file]
