"""Reads docker-compose.yml the way Compose does, as far as ours goes: merges, `${…}`, `$$`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<how>:[?-])(?P<rest>[^}]*))?\})")


class Missing(Exception):
    """A required variable is not set; the message is the compose file's own."""


def load(variables: Mapping[str, str]) -> dict[str, Any]:
    """The compose file with variables filled in. Raises Missing."""
    return _filled(yaml.safe_load((ROOT / "docker-compose.yml").read_text()), variables)


def _filled(node: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _filled(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, variables) for value in node]
    if isinstance(node, str):
        return _VARIABLE.sub(lambda found: _value(found, variables), node)
    return node


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    if found[0] == "$$":
        return "$"
    value = variables.get(found["name"], "")
    if value:
        return value
    if found["how"] == ":?":
        raise Missing(f"{found['name']}: {found['rest']}")
    return found["rest"] or ""


def required() -> set[str]:
    """Names that the file refuses to do without."""
    text = (ROOT / "docker-compose.yml").read_text()
    return {found["name"] for found in _VARIABLE.finditer(text) if found["how"] == ":?"}


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """A service's environment; a name without a value is passed on only when set outside."""
    return {name: str(value) for name, value in service["environment"].items() if value is not None}
