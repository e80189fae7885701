"""`python -m training.architectures`: the model types that each task can train, as JSON.

`models/architectures.json` is its output, which tells the API at submit what only transformers
knows; a test holds the two equal, so an upgrade of transformers shows in it.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from models.tasks import TRAINABLE, module_name
from training.tasks.base import Task


def of_task(name: str) -> list[str]:
    """The values of `model_type` in config.json, sorted."""
    kind: type[Task[Any]] = import_module(f"training.tasks.{module_name(name)}").TASK
    return sorted(kind.model_types())


def table() -> str:
    return json.dumps({name: of_task(name) for name in TRAINABLE}, indent=1) + "\n"


if __name__ == "__main__":
    print(table(), end="")
