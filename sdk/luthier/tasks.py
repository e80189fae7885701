"""`client.tasks`: what the service can train, with each task's data format and an example."""

from __future__ import annotations

from typing import Unpack

from openai._base_client import AsyncPaginator
from openai._resource import AsyncAPIResource, SyncAPIResource
from openai.pagination import AsyncPage, SyncPage

from luthier.requests import CallOptions, request_options
from luthier.types import Task

TASKS = "/tasks"


class Tasks(SyncAPIResource):
    def list(self, **call: Unpack[CallOptions]) -> SyncPage[Task]:
        return self._get_api_list(
            TASKS, page=SyncPage[Task], model=Task, options=request_options(**call)
        )


class AsyncTasks(AsyncAPIResource):
    def list(self, **call: Unpack[CallOptions]) -> AsyncPaginator[Task, AsyncPage[Task]]:
        return self._get_api_list(
            TASKS, page=AsyncPage[Task], model=Task, options=request_options(**call)
        )
