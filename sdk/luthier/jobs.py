"""`client.fine_tuning`: OpenAI's calls, answering with `Job`, and ours beside them.

Every method of the stock resource stays, with the same arguments; `create` takes our fields by
name as well as through `extra_body`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Required, Unpack, cast

from openai import RequestOptions, omit
from openai._base_client import AsyncPaginator
from openai._types import Omit
from openai.pagination import AsyncCursorPage, SyncCursorPage
from openai.resources.fine_tuning import AsyncFineTuning as OpenAIAsyncFineTuning
from openai.resources.fine_tuning import FineTuning as OpenAIFineTuning
from openai.resources.fine_tuning.jobs import AsyncJobs as OpenAIAsyncJobs
from openai.resources.fine_tuning.jobs import Jobs as OpenAIJobs
from openai.types.fine_tuning import job_create_params

from luthier.requests import CallOptions, given, path, request_options
from luthier.types import (
    Comparison,
    Estimate,
    Job,
    MetricPage,
    MetricPoint,
    Split,
    StopMode,
)
from luthier.validations import Cleaning
from luthier.watching import STREAM, AsyncMessages, Messages, Update, watch, watch_async

JOBS = "/fine_tuning/jobs"
JOB = JOBS + "/{}"


class JobFields(CallOptions, total=False):
    """The arguments of `create`. Those from `task` on are Luthier's own."""

    model: Required[str]
    training_file: Required[str]
    hyperparameters: Mapping[str, object] | Omit
    integrations: Iterable[job_create_params.Integration] | Omit | None
    metadata: dict[str, str] | Omit | None
    method: Mapping[str, object] | Omit
    seed: int | Omit | None
    suffix: str | Omit | None
    validation_file: str | Omit | None

    task: str
    column_mapping: Mapping[str, str]
    skip_invalid: float
    cleaning: Cleaning
    tuning: str
    resources: Mapping[str, object]
    priority: int
    from_checkpoint: str


def _create_request(fields: JobFields) -> tuple[dict[str, object], RequestOptions]:
    call = {name: value for name, value in fields.items() if name in CallOptions.__annotations__}
    body = {name: value for name, value in fields.items() if name not in call}
    return given(body), request_options(**cast(CallOptions, call))


class Jobs(OpenAIJobs):
    def create(self, **fields: Unpack[JobFields]) -> Job:
        body, options = _create_request(fields)
        return self._post(JOBS, body=body, cast_to=Job, options=options)

    def estimate(self, **fields: Unpack[JobFields]) -> Estimate:
        """What `create` with the same arguments would take."""
        body, options = _create_request(fields)
        return self._post(JOBS + "/estimate", body=body, cast_to=Estimate, options=options)

    def clone(
        self,
        fine_tuning_job_id: str,
        changes: Mapping[str, object] | None = None,
        **call: Unpack[CallOptions],
    ) -> Job:
        """Submit a job again with these changes to its request; None takes a field away."""
        return self._post(
            path(JOB + "/clone", fine_tuning_job_id),
            body=dict(changes or {}),
            cast_to=Job,
            options=request_options(**call),
        )

    def compare(self, *fine_tuning_job_ids: str, **call: Unpack[CallOptions]) -> Comparison:
        """What differs between two to ten jobs."""
        query = "&".join(path("job={}", job_id) for job_id in fine_tuning_job_ids)
        return self._get(
            f"/fine_tuning/compare?{query}", cast_to=Comparison, options=request_options(**call)
        )

    def retrieve(self, fine_tuning_job_id: str, **call: Unpack[CallOptions]) -> Job:
        return self._get(
            path(JOB, fine_tuning_job_id), cast_to=Job, options=request_options(**call)
        )

    def list(  # type: ignore[override]  # a page of Job is not one of FineTuningJob to the checker
        self,
        *,
        after: str | Omit = omit,
        limit: int | Omit = omit,
        metadata: dict[str, str] | Omit | None = omit,
        **call: Unpack[CallOptions],
    ) -> SyncCursorPage[Job]:
        query = {"after": after, "limit": limit, "metadata": metadata}
        return self._get_api_list(
            JOBS, page=SyncCursorPage[Job], model=Job, options=request_options(query, **call)
        )

    def cancel(
        self, fine_tuning_job_id: str, *, mode: StopMode | Omit = omit, **call: Unpack[CallOptions]
    ) -> Job:
        """Cancel a job; its checkpoints are kept, and `save`, the default, makes a last one."""
        return self._act(fine_tuning_job_id, "cancel", {"mode": mode}, **call)

    def pause(
        self, fine_tuning_job_id: str, *, mode: StopMode | Omit = omit, **call: Unpack[CallOptions]
    ) -> Job:
        """Take a job from its worker or the queue, until it is resumed; `mode` as in `cancel`."""
        return self._act(fine_tuning_job_id, "pause", {"mode": mode}, **call)

    def resume(self, fine_tuning_job_id: str, **call: Unpack[CallOptions]) -> Job:
        return self._act(fine_tuning_job_id, "resume", {}, **call)

    def _act(
        self, job_id: str, action: str, query: dict[str, object], **call: Unpack[CallOptions]
    ) -> Job:
        url = path(JOB + "/" + action, job_id)
        return self._post(url, cast_to=Job, options=request_options(query, **call))

    def metrics_page(
        self,
        fine_tuning_job_id: str,
        *,
        split: Split = "train",
        after_step: int | Omit = omit,
        **call: Unpack[CallOptions],
    ) -> MetricPage:
        """The points of one split after a step, rising; `has_more` says whether more follow."""
        url = path(JOB + "/metrics", fine_tuning_job_id)
        query = {"split": split, "after_step": after_step}
        return self._get(url, cast_to=MetricPage, options=request_options(query, **call))

    def metrics(
        self, fine_tuning_job_id: str, *, split: Split = "train", after_step: int | Omit = omit
    ) -> Iterator[MetricPoint]:
        """Every point of one split so far, by rising step, fetched page by page."""
        while True:
            page = self.metrics_page(fine_tuning_job_id, split=split, after_step=after_step)
            yield from page.data
            if not page.has_more or not page.data:
                return
            after_step = page.data[-1].step

    def watch(
        self,
        fine_tuning_job_id: str,
        *,
        give_up_after: float | None = 600.0,
    ) -> Iterator[Update]:
        """Follow a job until it ends; see `luthier.watching.watch`."""
        patient = self._client.with_options(max_retries=0, timeout=30.0)
        return watch(Jobs(patient), fine_tuning_job_id, give_up_after)

    def stream(self, fine_tuning_job_id: str, *, last_event_id: str | None = None) -> Messages:
        """All that happens to a job as server-sent messages, after the one of this id if given.

        It may end before the job does; `watch` then goes on from the last id that came.
        """
        headers = {"Accept": STREAM}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        return self._get(
            path(JOB + "/events", fine_tuning_job_id),
            cast_to=object,
            options=request_options(extra_headers=headers),
            stream=True,
            stream_cls=Messages,
        )


class AsyncJobs(OpenAIAsyncJobs):
    async def create(self, **fields: Unpack[JobFields]) -> Job:
        body, options = _create_request(fields)
        return await self._post(JOBS, body=body, cast_to=Job, options=options)

    async def estimate(self, **fields: Unpack[JobFields]) -> Estimate:
        """What `create` with the same arguments would take."""
        body, options = _create_request(fields)
        return await self._post(JOBS + "/estimate", body=body, cast_to=Estimate, options=options)

    async def clone(
        self,
        fine_tuning_job_id: str,
        changes: Mapping[str, object] | None = None,
        **call: Unpack[CallOptions],
    ) -> Job:
        """Submit a job again with these changes to its request; None takes a field away."""
        return await self._post(
            path(JOB + "/clone", fine_tuning_job_id),
            body=dict(changes or {}),
            cast_to=Job,
            options=request_options(**call),
        )

    async def compare(self, *fine_tuning_job_ids: str, **call: Unpack[CallOptions]) -> Comparison:
        """What differs between two to ten jobs."""
        query = "&".join(path("job={}", job_id) for job_id in fine_tuning_job_ids)
        return await self._get(
            f"/fine_tuning/compare?{query}", cast_to=Comparison, options=request_options(**call)
        )

    async def retrieve(self, fine_tuning_job_id: str, **call: Unpack[CallOptions]) -> Job:
        return await self._get(
            path(JOB, fine_tuning_job_id), cast_to=Job, options=request_options(**call)
        )

    def list(  # type: ignore[override]  # a page of Job is not one of FineTuningJob to the checker
        self,
        *,
        after: str | Omit = omit,
        limit: int | Omit = omit,
        metadata: dict[str, str] | Omit | None = omit,
        **call: Unpack[CallOptions],
    ) -> AsyncPaginator[Job, AsyncCursorPage[Job]]:
        query = {"after": after, "limit": limit, "metadata": metadata}
        return self._get_api_list(
            JOBS, page=AsyncCursorPage[Job], model=Job, options=request_options(query, **call)
        )

    async def cancel(
        self, fine_tuning_job_id: str, *, mode: StopMode | Omit = omit, **call: Unpack[CallOptions]
    ) -> Job:
        """Cancel a job; its checkpoints are kept, and `save`, the default, makes a last one."""
        return await self._act(fine_tuning_job_id, "cancel", {"mode": mode}, **call)

    async def pause(
        self, fine_tuning_job_id: str, *, mode: StopMode | Omit = omit, **call: Unpack[CallOptions]
    ) -> Job:
        """Take a job from its worker or the queue, until it is resumed; `mode` as in `cancel`."""
        return await self._act(fine_tuning_job_id, "pause", {"mode": mode}, **call)

    async def resume(self, fine_tuning_job_id: str, **call: Unpack[CallOptions]) -> Job:
        return await self._act(fine_tuning_job_id, "resume", {}, **call)

    async def _act(
        self, job_id: str, action: str, query: dict[str, object], **call: Unpack[CallOptions]
    ) -> Job:
        url = path(JOB + "/" + action, job_id)
        return await self._post(url, cast_to=Job, options=request_options(query, **call))

    async def metrics_page(
        self,
        fine_tuning_job_id: str,
        *,
        split: Split = "train",
        after_step: int | Omit = omit,
        **call: Unpack[CallOptions],
    ) -> MetricPage:
        """The points of one split after a step, rising; `has_more` says whether more follow."""
        url = path(JOB + "/metrics", fine_tuning_job_id)
        query = {"split": split, "after_step": after_step}
        return await self._get(url, cast_to=MetricPage, options=request_options(query, **call))

    async def metrics(
        self, fine_tuning_job_id: str, *, split: Split = "train", after_step: int | Omit = omit
    ) -> AsyncIterator[MetricPoint]:
        """Every point of one split so far, by rising step, fetched page by page."""
        while True:
            page = await self.metrics_page(fine_tuning_job_id, split=split, after_step=after_step)
            for point in page.data:
                yield point
            if not page.has_more or not page.data:
                return
            after_step = page.data[-1].step

    def watch(
        self,
        fine_tuning_job_id: str,
        *,
        give_up_after: float | None = 600.0,
    ) -> AsyncIterator[Update]:
        """Follow a job until it ends; see `luthier.watching.watch`."""
        patient = self._client.with_options(max_retries=0, timeout=30.0)
        return watch_async(AsyncJobs(patient), fine_tuning_job_id, give_up_after)

    async def stream(
        self, fine_tuning_job_id: str, *, last_event_id: str | None = None
    ) -> AsyncMessages:
        """All that happens to a job as server-sent messages, after the one of this id if given.

        It may end before the job does; `watch` then goes on from the last id that came.
        """
        headers = {"Accept": STREAM}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        return await self._get(
            path(JOB + "/events", fine_tuning_job_id),
            cast_to=object,
            options=request_options(extra_headers=headers),
            stream=True,
            stream_cls=AsyncMessages,
        )


class FineTuning(OpenAIFineTuning):
    @cached_property
    def jobs(self) -> Jobs:
        return Jobs(self._client)


class AsyncFineTuning(OpenAIAsyncFineTuning):
    @cached_property
    def jobs(self) -> AsyncJobs:
        return AsyncJobs(self._client)
