"""`client.validations`: data files checked by the service, before a job or without one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Required, TypedDict, Unpack, cast

import openai
from openai import RequestOptions, omit
from openai._base_client import AsyncPaginator
from openai._resource import AsyncAPIResource, SyncAPIResource
from openai._types import Omit
from openai.pagination import AsyncCursorPage, SyncCursorPage

from luthier.requests import CallOptions, given, path, request_options
from luthier.types import Validation

VALIDATIONS = "/fine_tuning/validations"
VALIDATION = VALIDATIONS + "/{}"
OF_JOB = "/fine_tuning/jobs/{}/validation"
ENDED = ("succeeded", "failed")


class NotInTime(openai.OpenAIError):
    """A validation had not ended when the caller would wait no longer. It goes on."""


class Cleaning(TypedDict, total=False):
    trim: bool
    normalize: str | None
    dedupe: bool
    split: float
    balance: str | None
    seed: int


class ValidationFields(CallOptions, total=False):
    """The arguments of `create`."""

    training_file: Required[str]
    validation_file: str | Omit | None
    task: str | Omit | None
    model: str | Omit | None
    column_mapping: Mapping[str, str] | Omit | None
    skip_invalid: float | Omit | None
    cleaning: Cleaning | Omit | None


def _create_request(fields: ValidationFields) -> tuple[dict[str, object], RequestOptions]:
    call = {name: value for name, value in fields.items() if name in CallOptions.__annotations__}
    body = {name: value for name, value in fields.items() if name not in call}
    return given(body), request_options(**cast(CallOptions, call))


def _late(validation_id: str, seconds: float) -> NotInTime:
    return NotInTime(
        f"The validation {validation_id} has not ended within {seconds:g} seconds. It goes on: "
        "retrieve it later, or wait longer."
    )


class Validations(SyncAPIResource):
    def create(self, **fields: Unpack[ValidationFields]) -> Validation:
        """Have files checked row by row, as a job would; `wait` for what is found."""
        body, options = _create_request(fields)
        return self._post(VALIDATIONS, body=body, cast_to=Validation, options=options)

    def retrieve(self, validation_id: str, **call: Unpack[CallOptions]) -> Validation:
        url = path(VALIDATION, validation_id)
        return self._get(url, cast_to=Validation, options=request_options(**call))

    def of_job(self, fine_tuning_job_id: str, **call: Unpack[CallOptions]) -> Validation:
        """What a job waits for, or was queued or failed by."""
        url = path(OF_JOB, fine_tuning_job_id)
        return self._get(url, cast_to=Validation, options=request_options(**call))

    def list(
        self, *, after: str | Omit = omit, limit: int | Omit = omit, **call: Unpack[CallOptions]
    ) -> SyncCursorPage[Validation]:
        """Newest first, those that uploads began among them."""
        query = {"after": after, "limit": limit}
        return self._get_api_list(
            VALIDATIONS,
            page=SyncCursorPage[Validation],
            model=Validation,
            options=request_options(query, **call),
        )

    def wait(
        self, validation_id: str, *, interval: float = 0.5, max_wait_seconds: float = 7200.0
    ) -> Validation:
        """The validation once it has ended. Raises NotInTime."""
        deadline = time.monotonic() + max_wait_seconds
        while (found := self.retrieve(validation_id)).status not in ENDED:
            if time.monotonic() > deadline:
                raise _late(validation_id, max_wait_seconds)
            self._sleep(interval)
        return found


class AsyncValidations(AsyncAPIResource):
    async def create(self, **fields: Unpack[ValidationFields]) -> Validation:
        """Have files checked row by row, as a job would; `wait` for what is found."""
        body, options = _create_request(fields)
        return await self._post(VALIDATIONS, body=body, cast_to=Validation, options=options)

    async def retrieve(self, validation_id: str, **call: Unpack[CallOptions]) -> Validation:
        url = path(VALIDATION, validation_id)
        return await self._get(url, cast_to=Validation, options=request_options(**call))

    async def of_job(self, fine_tuning_job_id: str, **call: Unpack[CallOptions]) -> Validation:
        """What a job waits for, or was queued or failed by."""
        url = path(OF_JOB, fine_tuning_job_id)
        return await self._get(url, cast_to=Validation, options=request_options(**call))

    def list(
        self, *, after: str | Omit = omit, limit: int | Omit = omit, **call: Unpack[CallOptions]
    ) -> AsyncPaginator[Validation, AsyncCursorPage[Validation]]:
        """Newest first, those that uploads began among them."""
        query = {"after": after, "limit": limit}
        return self._get_api_list(
            VALIDATIONS,
            page=AsyncCursorPage[Validation],
            model=Validation,
            options=request_options(query, **call),
        )

    async def wait(
        self, validation_id: str, *, interval: float = 0.5, max_wait_seconds: float = 7200.0
    ) -> Validation:
        """The validation once it has ended. Raises NotInTime."""
        deadline = time.monotonic() + max_wait_seconds
        while (found := await self.retrieve(validation_id)).status not in ENDED:
            if time.monotonic() > deadline:
                raise _late(validation_id, max_wait_seconds)
            await asyncio.sleep(interval)
        return found
