"""What trackers are told of a step."""

from __future__ import annotations

from typing import Any


def metric_values(record: dict[str, Any]) -> dict[str, float]:
    """A `metrics` record's values, named `train/loss` and so on; what is no number is left out."""
    split = record["split"]
    return {f"{split}/{name}": v for name, v in record["values"].items() if v is not None}
