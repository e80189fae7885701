"""Whether a base model can be trained as asked, told from its config before anything is loaded."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.errors import InvalidRequest
from models.catalogue import BaseModel
from models.spec import Tuning

COMMON = (
    "bert", "roberta", "distilbert", "deberta-v2", "modernbert", "llama", "qwen3", "gemma3_text",
    "gpt2", "t5", "bart", "marian", "vit", "swin", "convnext", "resnet", "segformer", "detr",
    "yolos", "wav2vec2", "hubert", "whisper", "audio-spectrogram-transformer", "speecht5",
)  # fmt: skip
"""Named in messages where they can be trained; the whole list would be too long to read."""

TIMM_BY_DEFAULT = ("detr", "table-transformer")

_TABLE = Path(__file__).with_name("architectures.json")


@lru_cache
def architectures() -> dict[str, list[str]]:
    """The `model_type`s that each task can train (`training/architectures.py` writes them)."""
    table: dict[str, list[str]] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table


def check(base: BaseModel, task: str, tuning: Tuning) -> None:
    """Raise InvalidRequest where the model is not of a kind that the task can train."""
    kind = base.config.get("model_type")
    if kind is not None and kind not in architectures()[task]:
        raise _unfit(base, f"its type {kind!r} cannot be trained for {task}", task)
    if needs := _missing_library(base.config):
        raise _unfit(base, f"it needs {needs}, which is not part of this service", task)
    if tuning == "scratch" and task == "preference":
        raise InvalidRequest(
            "Preferences are learnt by a model that can write already. Start from a trained one, "
            "with `tuning` 'full' or 'lora'.",
            param="tuning",
            code="unsupported_tuning",
        )
    if tuning != "scratch" and base.weights is False:
        raise InvalidRequest(
            f"The model {base.name!r} is a config without weights. Train it with `tuning` "
            "'scratch', or name a model that has some.",
            param="tuning",
            code="unsupported_tuning",
        )


def _missing_library(config: dict[str, Any]) -> str | None:
    """timm brings torchvision along. DETR takes its backbones unless it is told otherwise."""
    backbone = (config.get("backbone_config") or {}).get("model_type")
    by_default = config.get("model_type") in TIMM_BY_DEFAULT and backbone is None
    if backbone == "timm_backbone" or config.get("use_timm_backbone", by_default):
        return "the library timm (and torchvision)"
    return None


def _unfit(base: BaseModel, reason: str, task: str) -> InvalidRequest:
    able = architectures()[task]
    named = [kind for kind in able if len(able) <= len(COMMON) or kind in COMMON]
    return InvalidRequest(
        f"The model {base.name!r} does not fit: {reason}. "
        f"Types that can be trained for {task} are, among others: {', '.join(named)}.",
        param="model",
        code="unsupported_model",
    )
