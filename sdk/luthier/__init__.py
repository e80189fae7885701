"""Luthier's client: the OpenAI client, pointed at your own service, plus what that service adds.

>>> from luthier import Luthier
>>> client = Luthier()
>>> for update in client.fine_tuning.jobs.watch("ftjob-…"):
...     print(update.job.status, update.job.progress)
>>> client.models.download("ft:…", "weights")
"""

from __future__ import annotations

from luthier.client import AsyncLuthier, Luthier
from luthier.connection import NoConnection
from luthier.downloads import DownloadError
from luthier.jobs import AsyncJobs, Jobs
from luthier.models import AsyncModels, Models
from luthier.types import Job, MetricPoint, ModelFile, Progress, Task, Validation
from luthier.validations import AsyncValidations, NotInTime, Validations
from luthier.watching import Interruption, Update

__all__ = [
    "AsyncJobs",
    "AsyncLuthier",
    "AsyncModels",
    "AsyncValidations",
    "DownloadError",
    "Interruption",
    "Job",
    "Jobs",
    "Luthier",
    "MetricPoint",
    "ModelFile",
    "Models",
    "NoConnection",
    "NotInTime",
    "Progress",
    "Task",
    "Update",
    "Validation",
    "Validations",
]
