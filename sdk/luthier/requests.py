"""The keyword arguments that every call of the OpenAI client takes, and paths with ids in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, Unpack
from urllib.parse import quote

import httpx2
from openai import RequestOptions
from openai._types import Headers, NotGiven, Omit, Query


class CallOptions(TypedDict, total=False):
    """As in the OpenAI client: what is given here goes into the request over anything else."""

    extra_headers: Headers | None
    extra_query: Query | None
    extra_body: object | None
    timeout: float | httpx2.Timeout | NotGiven | None


def request_options(
    query: Mapping[str, object] | None = None, **call: Unpack[CallOptions]
) -> RequestOptions:
    options: RequestOptions = {
        "params": {**given(query or {}), **(call.get("extra_query") or {})},
        "headers": call.get("extra_headers") or {},
    }
    body = call.get("extra_body")
    if isinstance(body, Mapping):
        options["extra_json"] = body
    timeout = call.get("timeout", NotGiven())
    if not isinstance(timeout, NotGiven):
        options["timeout"] = timeout
    return options


def given(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields that were given a value. None is one (JSON's null), `omit` is not."""
    return {name: value for name, value in fields.items() if not isinstance(value, Omit)}


def path(template: str, *ids: str) -> str:
    """Fill ids into a path, percent-encoded: a model's id may hold `/` and `:`."""
    for value in ids:
        if not value:
            raise ValueError(f"An empty id was given for {template}.")
    return template.format(*(quote(value, safe="") for value in ids))
