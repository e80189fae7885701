"""The clients: OpenAI's, that find the service by themselves and know what it adds.

Everything of `openai.OpenAI` is here with its own behaviour: retries, timeouts, pagination, error
classes, `with_options`, `with_raw_response`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

import httpx2
import openai

from luthier import connection
from luthier.jobs import AsyncFineTuning, FineTuning
from luthier.models import AsyncModels, Models
from luthier.predictions import AsyncPredictions, Predictions
from luthier.tasks import AsyncTasks, Tasks
from luthier.validations import AsyncValidations, Validations


class Luthier(openai.OpenAI):
    """The synchronous client. Without arguments it speaks with the service that
    `luthier.connection` finds; the rest of the arguments are those of `openai.OpenAI`.

    Raises `luthier.NoConnection` where no key is found.
    """

    def __init__(
        self,
        *,
        base_url: str | httpx2.URL | None = None,
        api_key: str | Callable[[], str] | None = None,
        **options: Any,
    ) -> None:
        url = str(base_url) if base_url is not None else None
        if callable(api_key):
            super().__init__(base_url=connection.find_url(url), api_key=api_key, **options)
        else:
            found = connection.find(url, api_key)
            super().__init__(base_url=found.base_url, api_key=found.api_key, **options)

    @cached_property
    def fine_tuning(self) -> FineTuning:
        return FineTuning(self)

    @cached_property
    def models(self) -> Models:
        return Models(self)

    @cached_property
    def predictions(self) -> Predictions:
        return Predictions(self)

    @cached_property
    def tasks(self) -> Tasks:
        return Tasks(self)

    @cached_property
    def validations(self) -> Validations:
        return Validations(self)


class AsyncLuthier(openai.AsyncOpenAI):
    """The asynchronous client, otherwise as `Luthier`."""

    def __init__(
        self,
        *,
        base_url: str | httpx2.URL | None = None,
        api_key: str | Callable[[], Awaitable[str]] | None = None,
        **options: Any,
    ) -> None:
        url = str(base_url) if base_url is not None else None
        if callable(api_key):
            super().__init__(base_url=connection.find_url(url), api_key=api_key, **options)
        else:
            found = connection.find(url, api_key)
            super().__init__(base_url=found.base_url, api_key=found.api_key, **options)

    @cached_property
    def fine_tuning(self) -> AsyncFineTuning:
        return AsyncFineTuning(self)

    @cached_property
    def models(self) -> AsyncModels:
        return AsyncModels(self)

    @cached_property
    def predictions(self) -> AsyncPredictions:
        return AsyncPredictions(self)

    @cached_property
    def tasks(self) -> AsyncTasks:
        return AsyncTasks(self)

    @cached_property
    def validations(self) -> AsyncValidations:
        return AsyncValidations(self)
