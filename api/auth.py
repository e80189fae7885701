"""Who calls: an API key, its project and its scopes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.context import Here
from core.errors import NotAuthenticated, NotPermitted
from models import keys
from models.keys import ApiKey

READING = ("GET", "HEAD")

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="api_key",
    description="An API key, such as `luthier-server up` writes to `DATA_DIR/api_key`.",
)


async def authenticate(
    request: Request,
    here: Here,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> ApiKey:
    """The caller's key. Its transaction is its own and over before the request's work begins.

    Raises NotAuthenticated without a live key, NotPermitted when its scopes don't cover the method.
    """
    if credentials is None or not credentials.credentials:
        raise NotAuthenticated(
            "No API key was given. Send the header `Authorization: Bearer KEY`; "
            "`luthier-server up` wrote a key to DATA_DIR/api_key, and "
            "`luthier-server keys create` makes more.",
            code="missing_api_key",
        )
    async with here.transaction() as db:
        key = await db(keys.authenticate, here.secret, credentials.credentials)
    if key is None:
        raise NotAuthenticated(
            "This API key is wrong, revoked or expired. Check the key, "
            "or ask the administrator for a new one (`luthier-server keys create`)."
        )
    needed = "read" if request.method in READING else "write"
    if needed not in key.scopes:
        raise NotPermitted(
            f"This API key may not {needed}: its scopes are {', '.join(key.scopes) or 'none'}. "
            f"Use a key with the scope {needed!r}."
        )
    return key


Caller = Annotated[ApiKey, Depends(authenticate)]
