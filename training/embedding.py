"""From token states to one vector a text, as sentence-transformers does it and writes it down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import torch

Pooling = Literal["mean", "cls", "lasttoken"]

POOLING = "1_Pooling/config.json"
TRANSFORMER = "sentence_bert_config.json"
MODULES = "modules.json"
KINDS = ("Transformer", "Pooling", "Normalize")
"""What a vector is made by here, in order."""
_SWITCHES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
}


def pooling_of(folder: Path) -> Pooling | None:
    """How a model's vectors were made before; the mean where it does not say. None for a way that
    is not known here."""
    config = _read(folder / POOLING)
    if not config:
        return "mean"
    if "pooling_mode" in config:
        on = [config["pooling_mode"]]
    else:
        switches = {name for name in config if name.startswith("pooling_mode_") and config[name]}
        on = [_SWITCHES.get(name) for name in switches]
    return on[0] if len(on) == 1 and on[0] in get_args(Pooling) else None


def left_out(folder: Path) -> list[str]:
    """The modules of a folder of sentence-transformers that come after pooling and are not run
    here, such as a dense layer."""
    try:
        modules = json.loads((folder / MODULES).read_bytes())
    except (OSError, ValueError):
        return []
    kinds = [
        str(module.get("type")).rpartition(".")[2]
        for module in (modules if isinstance(modules, list) else [])
        if isinstance(module, dict)
    ]
    return [kind for kind in kinds if kind not in KINDS]


def longest_of(folder: Path) -> int | None:
    """The most tokens that a model's texts had before."""
    longest: int | None = _read(folder / TRANSFORMER).get("max_seq_length")
    return longest


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Vectors (texts, width) in fp32 of states (texts, tokens, width); padding on either side."""
    states = states.float()
    chosen = read(mask, pooling)
    if chosen is None:
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)
    return states[chosen]


def read(mask: torch.Tensor, pooling: Pooling) -> torch.Tensor | None:
    """The one token of each text (texts, tokens) that its vector is made of; None if it is all."""
    if pooling == "mean":
        return None
    place = mask.cumsum(dim=1)
    return mask.bool() & (place == (1 if pooling == "cls" else mask.sum(dim=1, keepdim=True)))


def write(folder: Path, pooling: Pooling, width: int, longest: int | None) -> None:
    """What makes the folder one that sentence-transformers loads, with the same vectors."""
    modules = [
        {"idx": place, "name": str(place), "path": f"{place}_{kind}" if place else "",
         "type": f"sentence_transformers.models.{kind}"}
        for place, kind in enumerate(KINDS)
    ]  # fmt: skip
    _write(folder / MODULES, modules)
    switches = {name: way == pooling for name, way in _SWITCHES.items()}
    _write(folder / POOLING, {"word_embedding_dimension": width, **switches})
    _write(folder / TRANSFORMER, {"max_seq_length": longest, "do_lower_case": False})
    (folder / "2_Normalize").mkdir()


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
