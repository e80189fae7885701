"""Trackers of experiments that a job reports to: Weights & Biases as OpenAI has it, and MLflow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from models.data_spec import Strict

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Wandb(Strict):
    project: Name
    entity: Name | None = None
    """A team or user; None is that of the server's key."""
    name: Name | None = None
    """The run's; None is the job's id."""
    tags: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=64)]],
                    Field(max_length=50)] | None = None  # fmt: skip


class Mlflow(Strict):
    experiment: Name
    tracking_uri: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    """One that the administrator allows; None is the server's own."""
    run_name: Name | None = None
    """None is the job's id."""
    tags: Annotated[dict[Name, Annotated[str, StringConstraints(max_length=5000)]],
                    Field(max_length=50)] | None = None  # fmt: skip


class WandbIntegration(Strict):
    type: Literal["wandb"]
    wandb: Wandb


class MlflowIntegration(Strict):
    type: Literal["mlflow"]
    mlflow: Mlflow


Integration = Annotated[WandbIntegration | MlflowIntegration, Field(discriminator="type")]
