"""Tasks: what can be trained, and how its data is to look."""

from __future__ import annotations

from fastapi import APIRouter

from api.shapes.tasks import TaskList, task
from ingest.tasks import all_formats

router = APIRouter(prefix="/tasks", tags=["Tasks"])


@router.get("")
async def list_tasks() -> TaskList:
    """Each task with its data's format, a minimal example, its metrics and hyperparameters."""
    return TaskList(data=[task(format) for format in all_formats()])
