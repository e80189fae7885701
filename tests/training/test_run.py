"""The loop in this process: what it writes, in which order, and how it ends."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.material import (
    WORDS,
    JobFolder,
    StopAfter,
    fresh_copy,
    job_folder,
    of_type,
    run,
    sha256,
    spec,
    texts,
    tiny_bert,
    weights_of,
)
from training import rng
from training.failures import NonFiniteLoss, OutOfMemory
from training.tasks.base import Batch
from training.tasks.text_classification import TextClassification


def test_the_records_of_a_run(folder: JobFolder) -> None:
    records = run(folder.job(spec()))
    steps = [r["step"] for r in of_type(records, "metrics", split="train")]
    assert steps == list(range(1, 25))
    valid = of_type(records, "metrics", split="valid")
    assert [r["step"] for r in valid] == [5, 10, 15, 20, 24]
    assert set(valid[0]["values"]) == {"loss", "accuracy", "f1_macro"}
    point = of_type(records, "metrics", split="train")[0]["values"]
    assert set(point) == {
        "loss", "accuracy", "learning_rate", "grad_norm", "tokens_per_second", "samples_per_second"
    }  # fmt: skip
    assert [r["values"]["learning_rate"] for r in of_type(records, "metrics", split="train")][
        :3
    ] == [0.0, 5e-4, 1e-3]

    progress = of_type(records, "progress")
    assert progress[-1]["step"] == progress[-1]["total_steps"] == 24
    assert progress[-1]["epoch"] == 3.0
    words = sum(len(text.split()) + 2 for _, text, _, _ in texts(64))
    assert progress[-1]["trained_tokens"] == 3 * words

    saved = {r["step"]: r for r in of_type(records, "checkpoint")}
    bests = [r["step"] for r in saved.values() if r["best"]]
    assert {step for step in saved if saved[step]["reason"] == "interval"} == set(range(3, 24, 3))
    assert {s for s in saved if saved[s]["reason"] == "best"} <= {5, 10, 20} & set(bests)
    assert saved[24]["reason"] == "final"
    assert saved[3]["path"] == "checkpoints/step-3"
    assert saved[15]["metrics"]["valid_accuracy"] == valid[2]["values"]["accuracy"]

    done = records[-1]
    assert done["type"] == "done"
    best = max(valid, key=lambda r: (r["values"]["accuracy"], -r["step"]))
    assert done["best_step"] == best["step"] == bests[-1]
    assert done["metrics"]["valid_accuracy"] == best["values"]["accuracy"]
    assert done["bytes"] == sum(f.stat().st_size for f in (folder.path / "output").iterdir())
    assert {r["phase"] for r in of_type(records, "phase")} == {
        "loading_model", "preparing_data", "training", "evaluating", "saving", "exporting"
    }  # fmt: skip


def test_equal_runs_give_equal_weights_and_other_seeds_others(
    folder: JobFolder, tmp_path: Path
) -> None:
    short = {"total_steps": 6, "eval_every": 6}
    run(folder.job(spec(**short)))
    again = fresh_copy(folder, tmp_path / "again")
    run(again.job(spec(**short)))
    other = fresh_copy(folder, tmp_path / "other")
    run(other.job(spec(**short, seed=8)))
    assert weights_of(folder.path / "output") == weights_of(again.path / "output")
    assert weights_of(folder.path / "output") != weights_of(other.path / "output")


def test_without_validation_the_last_weights_are_the_result(folder: JobFolder) -> None:
    records = run(folder.job(spec(valid_rows=0, metric="loss", greater_is_better=False)))
    assert not of_type(records, "metrics", split="valid")
    assert of_type(records, "checkpoint")[-1]["reason"] == "final"
    assert records[-1]["best_step"] == 24
    assert "valid_loss" not in records[-1]["metrics"]
    assert weights_of(folder.path / "output") == weights_of(folder.path / "checkpoints" / "step-24")


class Scripted(TextClassification):
    """Validation accuracies as a script has them, all at one loss, in place of the model's."""

    script: tuple[float, ...] = ()

    def metrics(self, device: torch.device) -> Any:
        metrics = super().metrics(device)
        value, *rest = self.script
        self.script = tuple(rest)
        metrics.compute = lambda: {"accuracy": value, "f1_macro": value, "loss": 1.0}
        return metrics


def script(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    monkeypatch.setattr(Scripted, "script", values)
    monkeypatch.setattr("training.tasks.text_classification.TASK", Scripted)


def test_patience_ends_the_run_and_the_best_weights_are_the_result(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, 0.5, 0.4, 0.7, 0.7, 0.6)
    records = run(folder.job(spec(eval_every=2, checkpoint_every=100, early_stopping_patience=2)))
    assert [r["step"] for r in of_type(records, "metrics", split="valid")] == [2, 4, 6, 8, 10]
    saved = [(r["step"], r["reason"], r["best"]) for r in of_type(records, "checkpoint")]
    assert saved == [(2, "best", True), (6, "best", True), (10, "final", False)]
    done = records[-1]
    assert (done["type"], done["step"], done["best_step"]) == ("done", 10, 6)
    assert done["metrics"]["valid_accuracy"] == 0.7
    assert any("Stopping early at step 10" in r["message"] for r in of_type(records, "log"))
    # Equal in both is not better, so these are step 6's; the final checkpoint carries them along.
    final = folder.path / "checkpoints" / "step-10"
    assert weights_of(folder.path / "output") == weights_of(folder.path / "checkpoints" / "step-6")
    assert weights_of(folder.path / "output") == weights_of(final / "best") != weights_of(final)


def test_where_less_is_better_the_least_loss_wins(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, 0.4, 0.3, 0.6)
    records = run(
        folder.job(spec(metric="f1_macro", greater_is_better=False, eval_every=2, total_steps=6))
    )
    assert records[-1]["best_step"] == 4


def test_a_resumed_run_remembers_the_best_and_its_patience(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, 0.5, 0.9, 0.6, 0.7)
    patient = {"eval_every": 2, "checkpoint_every": 6, "early_stopping_patience": 2}
    run(folder.job(spec(**patient)))
    best = weights_of(folder.path / "checkpoints" / "step-8" / "best")
    assert weights_of(folder.path / "output") == best

    interrupted = fresh_copy(folder, tmp_path / "interrupted")
    script(monkeypatch, 0.5, 0.9, 0.6)
    records = run(interrupted.job(spec(**patient)), StopAfter(interrupted, 7))
    assert (records[-1]["type"], records[-1]["step"]) == ("stopped", 7)
    # Moved to another machine: this one folder is all that the next attempt is given.
    moved = fresh_copy(folder, tmp_path / "moved")
    resume_from = (interrupted.path / "checkpoints" / "step-7").rename(tmp_path / "step-7")
    script(monkeypatch, 0.7)
    records = run(moved.job(spec(**patient), resume_from=resume_from))
    assert (records[-1]["step"], records[-1]["best_step"]) == (8, 4)
    assert weights_of(moved.path / "output") == best


def test_a_loss_that_is_not_finite_ends_the_run_before_it_reaches_the_weights(
    tmp_path: Path, tiny_model: Path
) -> None:
    poisoned = tmp_path / "model"
    shutil.copytree(tiny_model, poisoned)
    weights = load_file(poisoned / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][WORDS["boring"]] = 3e38
    save_file(weights, poisoned / "model.safetensors", {"format": "pt"})
    rows = texts(64)
    at_fault = {row for row, text, _, _ in rows if "boring" in text}

    folder = job_folder(tmp_path / "job", poisoned, train=rows)
    plan = {"checkpoint_every": 1, "valid_rows": 0, "metric": "loss", "greater_is_better": False}
    with pytest.raises(NonFiniteLoss) as caught:
        run(folder.job(spec(**plan, micro_batch_size=1, seed=1)))
    assert caught.value.param == "training_file"
    assert {detail["row"] for detail in caught.value.details} <= at_fault
    failed_at = caught.value.details[0]["step"]
    assert failed_at > 1
    last = folder.newest_checkpoint()
    assert last.name == f"step-{failed_at - 1}"
    weights = load_file(last / "model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


class Steep(TextClassification):
    """A finite loss whose gradient is not."""

    def loss(self, model: Any, batch: Batch) -> Any:
        loss = super().loss(model, batch)
        return replace(loss, sum=loss.sum + (model.classifier.bias.sum() * 0).sqrt())


def test_a_gradient_that_is_not_finite_ends_the_run_as_well(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.tasks.text_classification.TASK", Steep)
    with pytest.raises(NonFiniteLoss, match="gradient of step 1") as caught:
        run(folder.job(spec()))
    assert len(caught.value.details) == 8


class Seeing(TextClassification):
    seeds: ClassVar[list[int]] = []

    def loss(self, model: Any, batch: Batch) -> Any:
        self.seeds.append(torch.initial_seed())
        return super().loss(model, batch)


def test_every_step_has_a_seed_of_its_own(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.tasks.text_classification.TASK", Seeing)
    run(folder.job(spec(total_steps=6, valid_rows=0, metric="loss")))
    by_step = [set(Seeing.seeds[i : i + 2]) for i in range(0, 12, 2)]
    assert by_step == [{rng.step_seed(7, step)} for step in range(6)]
    assert len({rng.step_seed(s, k, r) for s in range(3) for k in range(9) for r in range(2)}) == 54


class Hungry(TextClassification):
    """Has memory for two rows at a time; for four, once."""

    fours = 0

    def loss(self, model: Any, batch: Batch) -> Any:
        rows = len(batch.targets)
        self.fours += rows == 4
        if rows > 4 or (rows > 2 and self.fours > 1):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().loss(model, batch)


class Starving(TextClassification):
    def loss(self, model: Any, batch: Batch) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")


def test_out_of_memory_halves_the_micro_batch_and_changes_nothing_else(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short: dict[str, Any] = {"total_steps": 6, "eval_every": 3}
    small = fresh_copy(folder, tmp_path / "small")
    run(small.job(spec(**short, micro_batch_size=2)))
    monkeypatch.setattr("training.tasks.text_classification.TASK", Hungry)
    records = run(folder.job(spec(**short, micro_batch_size=8)))
    warnings = [r["message"] for r in of_type(records, "log", level="warn")]
    assert [w.split(" A step")[0] for w in warnings] == [
        "Out of memory with 8 rows at a time: going on with 4.",
        "Out of memory with 4 rows at a time: going on with 2.",
    ]
    # What the first tries left behind is gone: the run is the one that began with 2.
    assert weights_of(folder.path / "output") == weights_of(small.path / "output")
    assert records[-1]["trained_tokens"] > 0

    monkeypatch.setattr("training.tasks.text_classification.TASK", Starving)
    hopeless = fresh_copy(folder, tmp_path / "hopeless")
    with pytest.raises(OutOfMemory, match="one row"):
        run(hopeless.job(spec(**short)))


def test_a_stop_during_an_evaluation_is_made_good_by_the_next_attempt(
    folder: JobFolder, tmp_path: Path
) -> None:
    whole = fresh_copy(folder, tmp_path / "whole")
    run(whole.job(spec(total_steps=10, eval_every=4, checkpoint_every=100)))

    # The first look at the control pipe after step 4 is within step 4's evaluation.
    first = run(
        folder.job(spec(total_steps=10, eval_every=4, checkpoint_every=100)), StopAfter(folder, 4)
    )
    assert first[-1]["type"] == "stopped"
    assert first[-1]["step"] == 4
    assert not of_type(first, "metrics", split="valid")
    second = run(
        folder.job(
            spec(total_steps=10, eval_every=4, checkpoint_every=100),
            resume_from=folder.newest_checkpoint(),
        )
    )
    assert [r["step"] for r in of_type(second, "metrics", split="valid")] == [4, 8, 10]
    assert of_type(second, "checkpoint")[0]["best"]
    assert of_type(second, "checkpoint")[0]["step"] == 4
    assert weights_of(folder.path / "output") == weights_of(whole.path / "output")


def test_a_resume_elsewhere_says_that_bits_may_differ(folder: JobFolder) -> None:
    run(folder.job(spec(total_steps=3, eval_every=3)))
    state = folder.newest_checkpoint() / "training_state.pt"
    saved = torch.load(state, weights_only=True)
    saved["environment"]["versions"]["torch"] = "1.0"
    torch.save(saved, state)
    manifest = json.loads((state.parent / "manifest.json").read_text())
    manifest["files"]["training_state.pt"] = {
        "bytes": state.stat().st_size,
        "sha256": sha256(state),
    }
    (state.parent / "manifest.json").write_text(json.dumps(manifest))
    records = run(
        folder.job(spec(total_steps=3, eval_every=3), resume_from=folder.newest_checkpoint())
    )
    (warning,) = of_type(records, "log", level="warn")
    assert "other versions" in warning["message"]
    assert warning["data"]["before"]["versions"]["torch"] == "1.0"
    assert records[-1]["type"] == "done"


def test_bf16_computes_in_bf16_and_keeps_fp32_weights(folder: JobFolder, tmp_path: Path) -> None:
    run(folder.job(spec(precision="bf16", total_steps=4, eval_every=4)))
    weights = load_file(folder.path / "output" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    exact = fresh_copy(folder, tmp_path / "exact")
    run(exact.job(spec(total_steps=4, eval_every=4)))
    assert weights_of(folder.path / "output") != weights_of(exact.path / "output")
    plain = load_file(exact.path / "output" / "model.safetensors")
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, plain[name], atol=0.02, rtol=0.1)


def test_it_learns(folder: JobFolder) -> None:
    records = run(
        folder.job(spec(total_steps=120, eval_every=40, checkpoint_every=200, learning_rate=4e-3))
    )
    losses = [r["values"]["loss"] for r in of_type(records, "metrics", split="train")]
    assert sum(losses[-8:]) < 0.2 * sum(losses[:8])
    assert records[-1]["metrics"]["valid_accuracy"] > 0.9


def test_data_beyond_one_epoch_of_odd_size(tmp_path: Path) -> None:
    folder = job_folder(tmp_path / "job", tiny_bert(tmp_path / "model"), train=texts(13))
    records = run(folder.job(spec(train_rows=13, steps_per_epoch=2, total_steps=4, eval_every=4)))
    words = sum(len(text.split()) + 2 for _, text, _, _ in texts(13))
    assert records[-1]["trained_tokens"] == 2 * words
