"""The registry of tasks. A new task is one line here and one file of its name in `training/tasks/`.

The names are those of Hugging Face's pipelines. `ingest/tasks/<name>.py` holds a task's data
schema and formats, `training/tasks/<name>.py` its model and loss (dashes become underscores);
both are found by name, so that the API can list tasks without importing torch.
"""

from __future__ import annotations

from difflib import get_close_matches

TRAINABLE: tuple[str, ...] = ("text-classification",)

DEFAULT_METRIC: dict[str, tuple[str, bool]] = {
    "text-classification": ("accuracy", True),
}
"""The metric that picks a task's best checkpoint, and whether greater is better."""


def module_name(task: str) -> str:
    return task.replace("-", "_")


def suggest(task: str) -> str | None:
    """The trainable task nearest to a misspelt one, or None."""
    near = get_close_matches(task, TRAINABLE, n=1)
    return near[0] if near else None
