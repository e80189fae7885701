"""One answer for one call, however often a client repeats it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from api.auth import Caller
from models import idempotency
from models.db import Database


@dataclass(frozen=True)
class Call:
    """A POST that may be repeated: by its `Idempotency-Key`, or by the OpenAI client itself."""

    route: str
    project_id: str
    caller_id: str
    key: str | None
    is_retry: bool

    async def once(
        self, db: Database, body: BaseModel, make: Callable[[], Awaitable[str]]
    ) -> tuple[str, bool]:
        """The id that this call made, now or when it came first; and whether that was now.

        Raises Unprocessable when the key came before with another body.
        """
        content = body.model_dump_json(exclude_unset=True).encode()
        fingerprint = idempotency.fingerprint(self.caller_id, self.route, content)
        earlier = await db(
            idempotency.recall,
            self.project_id,
            key=self.key,
            fingerprint=fingerprint,
            is_retry=self.is_retry,
        )
        if earlier is not None:
            return earlier, False
        made = await make()
        await db(
            idempotency.remember,
            self.project_id,
            key=self.key,
            fingerprint=fingerprint,
            result_id=made,
        )
        return made, True


async def _call(
    request: Request,
    caller: Caller,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="A name of your own for this call: repeated with it, it is done once.",
        ),
    ] = None,
    x_stainless_retry_count: Annotated[
        str | None, Header(description="Sent by OpenAI's clients when they repeat a call.")
    ] = None,
) -> Call:
    retries = x_stainless_retry_count or "0"
    return Call(
        route=f"{request.method} {request.scope['path']}",
        project_id=caller.project_id,
        caller_id=caller.id,
        key=idempotency_key,
        is_retry=retries.isdecimal() and retries.strip("0") != "",
    )


Repeatable = Annotated[Call, Depends(_call)]
