"""`client.predictions`: a small fine-tuned model, tried on one input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from openai import omit
from openai._resource import AsyncAPIResource, SyncAPIResource
from openai._types import Omit

from luthier.requests import CallOptions, given, path, request_options
from luthier.types import Prediction

PREDICTIONS = "/predictions"


class Predictions(SyncAPIResource):
    def create(
        self,
        *,
        model: str,
        input: str | Mapping[str, object],
        max_tokens: int | Omit = omit,
        wait: float = 30.0,
        **call: Unpack[CallOptions],
    ) -> Prediction:
        """Try a model. `input` is a text, or an object with `text` and `text_pair`, with `text`,
        `source_language` and `target_language`, with `messages`, or the id of an uploaded picture
        or recording as `file`. One that takes longer than `wait` seconds, at most 30, is given as
        it stands then: `retrieve` tells the rest."""
        body = given({"model": model, "input": input, "max_tokens": max_tokens})
        options = request_options({"wait": wait}, **call)
        return self._post(PREDICTIONS, body=body, cast_to=Prediction, options=options)

    def retrieve(self, prediction_id: str, **call: Unpack[CallOptions]) -> Prediction:
        url = path(PREDICTIONS + "/{}", prediction_id)
        return self._get(url, cast_to=Prediction, options=request_options(**call))


class AsyncPredictions(AsyncAPIResource):
    async def create(
        self,
        *,
        model: str,
        input: str | Mapping[str, object],
        max_tokens: int | Omit = omit,
        wait: float = 30.0,
        **call: Unpack[CallOptions],
    ) -> Prediction:
        """As `Predictions.create`."""
        body = given({"model": model, "input": input, "max_tokens": max_tokens})
        options = request_options({"wait": wait}, **call)
        return await self._post(PREDICTIONS, body=body, cast_to=Prediction, options=options)

    async def retrieve(self, prediction_id: str, **call: Unpack[CallOptions]) -> Prediction:
        url = path(PREDICTIONS + "/{}", prediction_id)
        return await self._get(url, cast_to=Prediction, options=request_options(**call))
