"""Models that a task cannot train are refused with the reason and with what works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidRequest
from core.settings import Settings
from models import catalogue, fit
from models.catalogue import BaseModel
from models.spec import Tuning


def refusal(config: dict[str, Any], task: str, tuning: Tuning = "full", **more: Any) -> Any:
    with pytest.raises(InvalidRequest) as caught:
        fit.check(BaseModel("m", "hub", config=config, **more), task, tuning)
    return caught.value


def test_a_type_that_the_task_cannot_train_is_refused_with_those_that_it_can() -> None:
    error = refusal({"model_type": "llama"}, "image-classification")
    assert (error.error_code, error.param) == ("unsupported_model", "model")
    assert "type 'llama'" in str(error)
    assert "vit" in str(error)
    fit.check(BaseModel("m", "hub", config={"model_type": "vit"}), "image-classification", "full")


def test_a_config_that_could_not_be_read_is_left_to_the_trainer() -> None:
    fit.check(BaseModel("m", "hub"), "image-classification", "full")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "detr"},
        {"model_type": "detr", "use_timm_backbone": True},
        {"model_type": "detr", "backbone_config": {"model_type": "timm_backbone"}},
    ],
)
def test_a_model_that_needs_timm_is_refused(config: dict[str, Any]) -> None:
    assert "timm" in str(refusal(config, "object-detection"))


def test_a_detr_on_a_backbone_of_transformers_is_taken() -> None:
    config = {
        "model_type": "detr",
        "use_timm_backbone": False,
        "backbone_config": {"model_type": "resnet"},
    }
    fit.check(BaseModel("m", "hub", config=config), "object-detection", "full")


def test_a_config_without_weights_trains_from_scratch_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    settings = Settings(base_models={"bare": tmp_path})
    bare = catalogue.find(settings, "bare")
    assert bare.weights is False
    with pytest.raises(InvalidRequest, match="'scratch'"):
        fit.check(bare, "image-classification", "full")
    fit.check(bare, "image-classification", "scratch")


def test_the_configs_that_come_along_are_known_by_name() -> None:
    found = catalogue.find(Settings(), "scratch/vit-tiny")
    assert (found.config["model_type"], found.weights) == ("vit", False)
    assert "scratch/vit-tiny" in catalogue.names(Settings())
    for name in ("scratch/..", "scratch/../x", "scratch/", "scratch/nothing"):
        with pytest.raises(InvalidRequest, match="not known"):
            catalogue.find(Settings(hub=False), name)


def test_preferences_are_not_learnt_from_scratch() -> None:
    error = refusal({"model_type": "llama"}, "preference", "scratch")
    assert (error.error_code, error.param) == ("unsupported_tuning", "tuning")
