"""JSON merge patch (RFC 7396)."""

from __future__ import annotations

from typing import Any


def patched(target: Any, patch: Any) -> Any:
    """The target as the patch has it: members are replaced, objects merged, null takes away."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = patched(merged.get(name), value)
    return merged
