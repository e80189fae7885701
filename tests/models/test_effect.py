"""No setting is accepted that nothing would come of."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import InvalidRequest
from models.resolve import DataFacts, resolve
from models.spec import JobRequest, ResolvedSpec

PAIRS = "anchor,positive,negative"


def resolved(task: str, shape: str = "", rows: int = 100, **asked: Any) -> ResolvedSpec:
    request = JobRequest.model_validate(
        {"model": "m", "training_file": "f", "hyperparameters": asked}
    )
    facts = DataFacts(task, rows, 0, ["a", "b"], "0" * 64, None, shape)
    return resolve(request, facts, model="m", model_revision=None, seed=1, max_job_tokens=10**9)


@pytest.mark.parametrize(
    ("task", "shape", "asked", "says"),
    [
        ("fill-mask", "", {"momentum": 0.5}, "`optimizer` 'sgd'"),
        ("fill-mask", "", {"optimizer": "sgd", "adam_beta1": 0.5}, "'adamw' or 'adamw_8bit'"),
        ("fill-mask", "", {"optimizer": "adafactor", "adam_epsilon": 1e-6}, "or 'rmsprop'"),
        ("fill-mask", "", {"learning_rate": 1e-3, "learning_rate_multiplier": 2.0}, "out"),
        ("image-classification", "", {"max_length": 128}, "nothing of 'image-classification'"),
        ("automatic-speech-recognition", "", {"max_length": 128}, "nothing of"),
        ("object-detection", "", {"micro_batch_tokens": 512}, "are not"),
        ("fill-mask", "", {"micro_batch_tokens": 512, "packing": False}, "`packing` is false"),
        ("feature-extraction", PAIRS, {"micro_batch_tokens": 512}, "set against each other"),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_refused(
    task: str, shape: str, asked: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        resolved(task, shape, **asked)
    assert caught.value.param in asked


@pytest.mark.parametrize(
    ("task", "asked"),
    [
        ("fill-mask", {"optimizer": "sgd", "momentum": 0.5}),
        ("fill-mask", {"optimizer": "rmsprop", "adam_epsilon": 1e-6}),
        ("fill-mask", {"optimizer": "sgd", "adam_beta1": 0.9}),
        ("fill-mask", {"learning_rate": 1e-3, "learning_rate_multiplier": "auto"}),
        ("translation", {"max_length": 128, "micro_batch_tokens": 512}),
        ("text-generation", {"micro_batch_tokens": 512, "packing": True}),
    ],
)
def test_one_with_an_effect_is_not(task: str, asked: dict[str, Any]) -> None:
    found = resolved(task, **asked).model_dump()
    assert {name: found[name] for name in asked if name in found} == {
        name: value for name, value in asked.items() if name in found
    }


def test_a_run_of_one_step_learns() -> None:
    """A warm-up begins at a rate of 0."""
    assert resolved("fill-mask", max_steps=1).warmup_steps == 0
    assert resolved("fill-mask", max_steps=2).warmup_steps == 1
    assert resolved("fill-mask", max_steps=2, warmup_ratio=1.0).warmup_steps == 1
