"""Calls and rows of tests of webhooks."""

from __future__ import annotations

from typing import Any

from models import webhooks
from models.db import transaction
from models.webhooks import EventType
from tests.api.conftest import Live
from tests.faults.processes import wait_for
from tests.receiver import Receiver

ENDPOINTS = "/webhook_endpoints"


def ask(live: Live, method: str, path: str, key: str | None = None, **body: Any) -> Any:
    with live.http(key, verify=False) as http:
        answer = http.request(method, ENDPOINTS + path, json=body or None)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(live: Live, method: str, path: str, **body: Any) -> tuple[int, str, str | None]:
    with live.http(verify=False) as http:
        answer = http.request(method, ENDPOINTS + path, json=body or None)
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def make(live: Live, receiver: Receiver, *types: str, path: str = "/hook") -> Any:
    return ask(live, "POST", "", url=receiver.url + path, event_types=[*types] or ["*"])


def tell(live: Live, type: EventType = EventType.QUEUED) -> None:
    """Have a delivery made to each endpoint that wants it, as a job's transition does."""
    with transaction(live.engine) as session:
        webhooks.announce(session, live.project_id, type, {"id": "ftjob-told"})


def deliveries(live: Live, webhook: Any) -> list[Any]:
    found: list[Any] = ask(live, "GET", f"/{webhook['id']}/deliveries")["data"]
    return found


def ended(live: Live, webhook: Any, count: int = 1) -> list[Any]:
    """The log, once so many deliveries have ended."""

    def over() -> list[Any] | None:
        log = deliveries(live, webhook)
        return log if sum(one["status"] != "pending" for one in log) >= count else None

    return wait_for(f"{count} deliveries have ended", over, 20)
