"""How large a base model is, told without loading it."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.catalogue import BaseModel

HEADER_LIMIT = 100 * 1024**2
"""Of a safetensors file, as the format itself bounds it."""
ASSUMED = 100_000_000
"""Weights of a model of which neither its files nor its config tell."""


@dataclass(frozen=True)
class ModelSize:
    parameters: int
    hidden: int
    layers: int
    is_known: bool = True
    """False where `parameters` is no more than an assumption."""


def of(model: BaseModel) -> ModelSize:
    """By its weights' headers, else by what the hub says, else by its config."""
    config = model.config
    hidden = int(_first(config, "hidden_size", "d_model", "n_embd", "dim") or 0)
    layers = int(
        _first(config, "num_hidden_layers", "n_layer", "num_layers", "encoder_layers") or 0
    )
    found = _stored(model.path) if model.path is not None else None
    found = found or model.parameters or _by_config(config, hidden, layers)
    return ModelSize(found or ASSUMED, hidden or 512, layers or 6, is_known=found is not None)


def _first(config: dict[str, Any], *names: str) -> Any:
    parts = [config, *(config.get(name) or {} for name in ("text_config", "encoder"))]
    return next((part[name] for part in parts for name in names if part.get(name)), None)


def _by_config(config: dict[str, Any], hidden: int, layers: int) -> int | None:
    """12 h^2 a layer (4 of attention, 8 of a feed-forward of 4 h) and the vocabulary's h a word."""
    if not hidden or not layers:
        return None
    words = int(_first(config, "vocab_size") or 0)
    both = 2 if config.get("is_encoder_decoder") else 1
    return 12 * hidden * hidden * layers * both + words * hidden


def _stored(folder: Path) -> int | None:
    """Weights in the folder's safetensors files; None where there are none, or where they cannot
    be read, which the trainer says better."""
    try:
        return sum(_count(path) for path in folder.glob("model*.safetensors")) or None
    except (OSError, ValueError, KeyError, struct.error):
        return None


def _count(path: Path) -> int:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > HEADER_LIMIT:
            raise ValueError(f"{path.name} is no safetensors file")
        header = json.loads(file.read(length))
    return sum(
        math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"
    )
