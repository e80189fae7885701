"""Defaults by stated rules, and base models by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidRequest
from core.settings import Settings
from models import catalogue, registry
from models.catalogue import ModelUnavailable
from models.resolve import DataFacts, resolve
from models.spec import JobRequest, ResolvedSpec


def resolved(
    rows: int = 1000, valid_rows: int = 0, task: str = "text-classification", **hyperparameters: Any
) -> ResolvedSpec:
    request = JobRequest.model_validate(
        {"model": "m", "training_file": "f", "hyperparameters": hyperparameters}
    )
    facts = DataFacts(task, rows, valid_rows, ["a", "b"], "0" * 64, None)
    return resolve(request, facts, model="m", model_revision=None, seed=1, max_job_tokens=10**9)


def test_a_short_last_window_counts_as_a_step() -> None:
    spec = resolved(rows=33, batch_size=32, n_epochs=3)
    assert (spec.steps_per_epoch, spec.total_steps) == (2, 6)


@pytest.mark.parametrize(
    ("rows", "epochs", "batch"), [(10, 10, 4), (500, 4, 8), (9605, 3, 32), (10**6, 3, 32)]
)
def test_auto_values(rows: int, epochs: int, batch: int) -> None:
    spec = resolved(rows=rows) if rows < 10**6 else resolved(rows=10**5)
    assert (spec.n_epochs, spec.batch_size) == (epochs, batch)


def test_the_day_belongs_to_what_may_hold_chats() -> None:
    """A template may write it. Specs of equal jobs of other tasks stay equal on any day."""
    request = JobRequest.model_validate({"model": "m", "training_file": "f"})
    for task, day in (("text-generation", "2024-02-29"), ("fill-mask", None)):
        facts = DataFacts(task, 10, 0, [], "0" * 64, None)
        spec = resolve(request, facts, model="m", model_revision=None, seed=1,
                       max_job_tokens=10**9, day="2024-02-29")  # fmt: skip
        assert spec.day == day
    # Of a job that an earlier release admitted.
    older = spec.model_dump(exclude={"day"})
    assert ResolvedSpec.model_validate(older).day is None


def test_the_batch_is_never_larger_than_the_data() -> None:
    assert resolved(rows=5, batch_size=64).batch_size == 5


def test_max_steps_rules_over_epochs() -> None:
    assert resolved(rows=100, batch_size=10, max_steps=25).n_epochs == 3
    assert resolved(rows=100, batch_size=10, max_steps=25, n_epochs=1).total_steps == 10


def test_the_multiplier_scales_the_base_rate_and_an_own_rate_wins() -> None:
    assert resolved(learning_rate_multiplier=2.0).learning_rate == pytest.approx(1e-4)
    assert resolved(learning_rate=3e-4).learning_rate == 3e-4


def test_the_metric_follows_the_validation_data() -> None:
    assert (resolved().metric, resolved().greater_is_better) == ("loss", False)
    spec = resolved(valid_rows=10)
    assert (spec.metric, spec.greater_is_better) == ("accuracy", True)


def test_early_stopping_without_validation_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="validation_file"):
        resolved(early_stopping_patience=2)


def test_a_job_without_end_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="Lower n_epochs") as caught:
        resolved(rows=10**6, n_epochs=1000)
    assert caught.value.error_code == "job_too_large"


@pytest.mark.parametrize(
    ("task", "asked", "says"),
    [
        ("text-classification", {"mixup": 0.2}, "task 'image-classification': rows"),
        ("object-detection", {"cutmix": 1.0}, "task 'image-classification'"),
        ("audio-classification", {"image_flip": 0.5}, "tasks 'image-classification' and"),
        ("text-to-speech", {"audio_snr": 0.0}, "what a model is to say"),
        ("text-to-speech", {"time_masking": 0.0}, "what a model is to say"),
        ("image-classification", {"token_swap": 0.1}, "task 'text-classification'"),
    ],
)
def test_augmentation_of_other_tasks_is_refused(task: str, asked: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        resolved(task=task, **asked)
    assert caught.value.param == next(iter(asked))


def test_a_strength_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="goes with `rand_augment`"):
        resolved(task="image-classification", rand_augment_magnitude=5)
    chosen = {"rand_augment": 2, "rand_augment_magnitude": 5, "image_crop": 0.5, "mixup": 0.2}
    assert resolved(task="image-classification", **chosen).model_dump().items() >= chosen.items()


def test_names_of_models() -> None:
    name = registry.name("owner/base-model@v1", "team a", "my suffix", "ftjob-01abc", step=7)
    assert name == "ft:base-model:team-a:my-suffix:01abc:ckpt-step-7"


def test_the_packaged_model_is_known_by_both_its_names() -> None:
    settings = Settings(hub=False)
    assert "all-MiniLM-L6-v2" in catalogue.names(settings)
    for name in ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"):
        found = catalogue.find(settings, name)
        assert (found.name, found.kind) == ("all-MiniLM-L6-v2", "package")
        assert found.path is not None
        assert (found.path / "model.safetensors").exists()


def test_an_unknown_model_is_refused_with_those_that_are_known() -> None:
    for name in ("all-MiniLM-L6", "owner/model", "no such thing", "../../etc"):
        with pytest.raises(InvalidRequest, match="Known models: all-MiniLM-L6-v2") as caught:
            catalogue.find(Settings(hub=False), name)
        assert (caught.value.error_code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(InvalidRequest, match=r"Did you mean 'all-MiniLM-L6-v2'\?"):
        catalogue.find(Settings(hub=False), "all-MiniLM-L6")


def test_a_registered_folder_is_found_and_a_broken_one_named(tmp_path: Path) -> None:
    settings = Settings(hub=False, base_models={"mine": tmp_path, "owner/theirs": tmp_path})
    with pytest.raises(ModelUnavailable, match=r"config\.json"):
        catalogue.find(settings, "mine")
    (tmp_path / "config.json").write_text("{}")
    assert catalogue.find(settings, "owner/theirs").path == tmp_path


def test_an_unreachable_hub_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # The address is read when the package is imported, so it is set where it is kept.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelUnavailable, match="could not be reached") as caught:
        catalogue.find(Settings(hub=True, hub_timeout_seconds=1), "owner/model")
    assert (caught.value.status, caught.value.param) == (503, "model")


def tuned(task: str, shape: str = "", **asked: Any) -> ResolvedSpec:
    request = JobRequest.model_validate({"model": "m", "training_file": "f", **asked})
    facts = DataFacts(task, 100, 20, [], "0" * 64, "1" * 64, shape)
    return resolve(request, facts, model="m", model_revision=None, seed=1, max_job_tokens=10**9)


def test_the_shape_of_the_data_picks_the_metric() -> None:
    several = tuned("text-classification", "text,labels")
    assert (several.metric, several.greater_is_better) == ("f1_micro", True)
    number = tuned("text-classification", "text,target")
    assert (number.metric, number.greater_is_better) == ("mse", False)
    assert number.shape == "text,target"


def test_lora_has_defaults_and_a_higher_rate() -> None:
    full, lora = tuned("fill-mask"), tuned("fill-mask", tuning="lora")
    assert full.lora is None
    assert lora.lora is not None
    assert lora.lora.rank == 8
    assert lora.learning_rate > full.learning_rate


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"lora": {}}, "`lora` goes with `tuning` 'lora'"),
        ({"tuning": "lora", "freeze": {"layers": 1}}, "`freeze` goes with `tuning` 'freeze'"),
        ({"tuning": "freeze"}, "needs to know what stays"),
        ({"tuning": "freeze", "freeze": {}}, "needs to know what stays"),
        ({"tuning": "lora", "lora": {"ranks": 4}}, "ranks"),
    ],
)
def test_ways_of_tuning_that_do_not_fit_are_refused(asked: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        tuned("fill-mask", **asked)


def test_beta_belongs_to_preference() -> None:
    assert tuned("preference").beta == 0.1
    assert tuned("preference", hyperparameters={"beta": 0.5}).beta == 0.5
    with pytest.raises(InvalidRequest, match="belongs to the task 'preference'"):
        tuned("fill-mask", hyperparameters={"beta": 0.5})


@pytest.mark.parametrize(
    ("shape", "asked", "becomes"),
    [
        ("prompt,chosen,rejected", None, "dpo"),
        ("prompt,chosen,rejected", "ipo", "ipo"),
        ("prompt,completion,label", None, "kto"),
        ("prompt,completion,label", "kto", "kto"),
        ("prompt,completion,label", "orpo", None),
        ("input,preferred_output,non_preferred_output", "kto", None),
    ],
)
def test_the_loss_of_preferences_follows_the_rows(
    shape: str, asked: str | None, becomes: str | None
) -> None:
    request = JobRequest.model_validate(
        {"model": "m", "training_file": "f", "hyperparameters": {"preference_loss": asked}}
    )
    facts = DataFacts("preference", 10, 0, [], "0" * 64, None, shape)
    more = {"model": "m", "model_revision": None, "seed": 1, "max_job_tokens": 10**9}
    if becomes is None:
        with pytest.raises(InvalidRequest, match="does not go with these rows"):
            resolve(request, facts, **more)  # type: ignore[arg-type]
    else:
        assert resolve(request, facts, **more).preference_loss == becomes  # type: ignore[arg-type]


def test_the_loss_of_preferences_belongs_to_their_task() -> None:
    with pytest.raises(InvalidRequest, match="'preference'"):
        resolved(preference_loss="dpo")


def test_settings_of_one_label_are_refused_elsewhere() -> None:
    assert resolved(label_smoothing=0.1, lr_scheduler="wsd").label_smoothing == 0.1
    weights = {"a": 1.0, "b": 2.0}
    assert resolved(class_weights=weights).class_weights == weights
    with pytest.raises(InvalidRequest, match="name the labels of the data"):
        resolved(class_weights={"a": 1.0})
    for task, shape in (("text-generation", ""), ("text-classification", "text,labels")):
        with pytest.raises(InvalidRequest, match="one label a row") as caught:
            tuned(task, shape, hyperparameters={"focal_gamma": 2.0})
        assert caught.value.param == "focal_gamma"
