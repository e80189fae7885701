"""The tasks: one small file each, named as in models/tasks.py and imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from models.spec import ResolvedSpec
from models.tasks import TRAINABLE, module_name
from training.failures import JobUnreadable
from training.tasks.base import Log, Task


def create(spec: ResolvedSpec, log: Log) -> Task[Any]:
    """The task that a spec names: the class called `TASK` in the module of its name."""
    if spec.task not in TRAINABLE:
        raise JobUnreadable(f"No task is called {spec.task!r}; there are {', '.join(TRAINABLE)}.")
    module = import_module(f"training.tasks.{module_name(spec.task)}")
    kind: type[Task[Any]] = module.TASK
    task = kind(spec, log)
    if spec.metric not in ("loss", *task.metric_names):
        known = ", ".join(("loss", *task.metric_names))
        raise JobUnreadable(f"{spec.task} has no metric {spec.metric!r}; it has {known}.")
    return task
