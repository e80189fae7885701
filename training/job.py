"""job.json: all that a run is told. The folder's layout is described in docs/job-folder.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.spec import ResolvedSpec
from training.failures import JobUnreadable


class Job(BaseModel):
    """One run. Paths in job.json may be relative to the folder; here they are absolute."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    folder: Path
    job_id: str
    spec: ResolvedSpec
    model_dir: Path
    train: Path
    valid: Path | None = None
    resume_from: Path | None = None
    threads: int | None = Field(None, ge=1)
    """None leaves torch its own choice. Other thread counts round sums differently."""
    device: Literal["cpu", "cuda"]
    ranks: int = Field(1, ge=1)
    """Processes that share each step's rows, each with a device of its own."""
    token_cache: Path | None = None
    """Where encoded rows are kept for later attempts and other jobs on this machine."""
    sharding: Literal["none", "full"] = "none"
    """Whether each rank holds all weights or its part of them."""

    @model_validator(mode="before")
    @classmethod
    def _absolute(cls, data: dict[str, object]) -> dict[str, object]:
        folder = Path(str(data["folder"]))
        paths = {
            name: folder / str(data[name])
            for name in ("model_dir", "train", "valid", "resume_from", "token_cache")
            if data.get(name) is not None
        }
        return data | paths

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def output(self) -> Path:
        return self.folder / "output"


def read_job(folder: Path) -> Job:
    """The job of this folder. Raises JobUnreadable if there is none or it breaks the contract."""
    try:
        members = json.loads((folder / "job.json").read_bytes())
        return Job.model_validate({**members, "folder": folder.absolute()})
    except (OSError, TypeError, ValueError) as error:
        raise JobUnreadable(f"job.json of {folder} cannot be used: {error}") from error
