"""What a model's folder says of how it reads text, told from its JSON files alone.

Nothing of the model is run but its chat template, in a sandbox (`ingest/chat_template.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ingest.chat_template import PLAIN_TEMPLATE

UNBOUNDED = 10**9
"""What a tokenizer config has for "no limit" is far beyond this."""
# RoBERTa and its kin count positions from behind the padding index.
_OFFSET_POSITIONS = frozenset(
    (
        "roberta",
        "xlm-roberta",
        "camembert",
        "longformer",
        "mpnet",
        "xlm-roberta-xl",
        "data2vec-text",
    )
)


@dataclass(frozen=True)
class ModelFolder:
    tokenizer: Path | None
    """Its tokenizer.json; None where it has no such file."""
    template: str
    """The chat template, or the plain one that the trainer gives to a model without."""
    special: dict[str, str]
    """The special tokens by their names, such as `eos_token`, for the template."""
    max_length: int | None
    """The most tokens that the model takes; None where nothing says so."""


def read(folder: Path) -> ModelFolder:
    config, given = _json(folder / "config.json"), _json(folder / "tokenizer_config.json")
    special = _json(folder / "special_tokens_map.json") | given
    tokens = {
        name: text
        for name, value in special.items()
        if name.endswith("_token") and isinstance(text := _text(value), str)
    }
    tokenizer = folder / "tokenizer.json"
    return ModelFolder(
        tokenizer=tokenizer if tokenizer.is_file() else None,
        template=_template(folder, given) or PLAIN_TEMPLATE,
        special=tokens,
        max_length=_max_length(config, given),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> Any:
    return value.get("content") if isinstance(value, dict) else value


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    """A file of its own comes before the config's member, which may be a list of named ones."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _max_length(config: dict[str, Any], tokenizer: dict[str, Any]) -> int | None:
    limits = []
    length = tokenizer.get("model_max_length")
    if isinstance(length, int | float) and 0 < length < UNBOUNDED:
        limits.append(int(length))
    text = config.get("text_config")
    positions = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    if isinstance(positions, int):
        padding = config.get("pad_token_id")
        offset = config.get("model_type") in _OFFSET_POSITIONS and isinstance(padding, int)
        limits.append(positions - padding - 1 if offset and isinstance(padding, int) else positions)
    return min(limits, default=None)
