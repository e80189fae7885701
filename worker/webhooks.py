"""Sends webhooks, as Standard Webhooks has it (https://www.standardwebhooks.com).

One endpoint is in one thread's hands at a time, under a lease, so that a slow receiver holds up
nobody but itself. Whatever happens here, a delivery is over only once that is written down: killed
before, it is sent again under the same `webhook-id`, by which a receiver tells that it had it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from importlib.metadata import version

from core import outgoing
from core.clock import unix
from core.outgoing import OutgoingFailed, OutgoingRefused
from models import webhook_leases, webhooks
from models.db import Disconnected
from models.leases import LeaseLost
from models.webhook_deliveries import Delivery
from models.webhook_leases import Outcome, Sendable
from worker.context import Context

POLL_SECONDS = 0.5
SENDERS = 8
"""Endpoints that one control worker delivers to at a time."""
MOST_IN_A_ROW = 50
"""Deliveries to one endpoint before others have their turn."""
RESOLVING_SECONDS = 30.0
"""What the system's resolver may take, by which a lease is longer than an attempt."""
JITTER = 0.25
"""A wait is lengthened by up to this share, so that a receiver that comes back is not met by all
of its deliveries at once."""
GONE = 410

log = logging.getLogger(__name__)


class Deliveries(threading.Thread):
    """Looks for what is due, and hands it to a few senders, until it is stopped."""

    def __init__(self, context: Context) -> None:
        super().__init__(name="webhooks", daemon=True)
        self._context = context
        self._rules = outgoing.Rules.parse(context.settings.outgoing_allow)
        self._secret = context.settings.signing_secret()
        self._agent = f"Luthier-Webhooks/{version('luthier-server')}"
        self._stopping = threading.Event()

    @property
    def lease_seconds(self) -> float:
        """Above the longest attempt: the lease is renewed between two."""
        settings = self._context.settings
        return settings.webhook_timeout_seconds + RESOLVING_SECONDS + settings.lease_seconds

    def run(self) -> None:
        busy: set[Future[None]] = set()
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="webhook") as pool:
            while not self._stopping.wait(POLL_SECONDS):
                busy = {future for future in busy if not future.done()}
                for claimed in self._claim(SENDERS - len(busy)):
                    busy.add(pool.submit(self._deliver, *claimed))

    def stop(self) -> None:
        """Begin no attempt any more, and wait for those under way."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def _claim(self, limit: int) -> list[tuple[str, int]]:
        if limit < 1:
            return []
        try:
            with self._context.transaction() as session:
                return webhook_leases.claim(session, self.lease_seconds, limit)
        except Disconnected as error:
            log.warning("webhooks wait for the database: %s", error)
            return []

    def _deliver(self, webhook_id: str, fence: int) -> None:
        """Send what is due to one endpoint, then leave it."""
        try:
            for _ in range(MOST_IN_A_ROW):
                with self._context.transaction() as session:
                    sendable = webhook_leases.next_due(
                        session, webhook_id, fence, self.lease_seconds
                    )
                if sendable is None:
                    return
                if self._stopping.is_set():
                    break
                self._attempt(sendable, fence)
            with self._context.transaction() as session:
                webhook_leases.release(session, webhook_id, fence)
        except LeaseLost:
            log.info("webhook %s was changed or taken over", webhook_id)
        except Disconnected as error:
            log.warning("webhook %s waits for the database: %s", webhook_id, error)
        except Exception:
            # Nobody asks this thread how it ended. What it held is tried again after its lease.
            log.exception("webhook %s: delivering broke off", webhook_id)

    def _attempt(self, sendable: Sendable, fence: int) -> None:
        delivery = sendable.delivery
        outcome = self._send(sendable)
        after = timedelta(seconds=self._context.settings.webhook_disable_seconds)
        with self._context.transaction() as session:
            disabled = webhook_leases.record(
                session, delivery.webhook_id, fence, delivery.id, outcome, after
            )
        # Not the URL: it may hold a secret of the receiver's.
        log.info("delivery %s to %s: %s", delivery.id, delivery.webhook_id, outcome.error or "ok")
        if disabled:
            log.warning("webhook %s is disabled", delivery.webhook_id)

    def _send(self, sendable: Sendable) -> Outcome:
        settings = self._context.settings
        body, headers = self._signed(sendable)
        began = time.monotonic()
        try:
            answer = outgoing.post(
                self._rules,
                sendable.url,
                body,
                headers,
                seconds=settings.webhook_timeout_seconds,
            )
            status, told = answer.status, answer.body.decode(errors="replace").replace("\0", "")
            error = _explained(status)
        except (OutgoingRefused, OutgoingFailed) as refused:
            status, told, error = None, None, str(refused)
        seconds = round(time.monotonic() - began, 3)
        delivery = sendable.delivery
        waits = [] if delivery.sample else settings.webhook_retry_seconds[delivery.attempts :]
        gone = status == GONE
        retry = None
        if error is not None and waits and not gone:
            retry = waits[0] * random.uniform(1, 1 + JITTER)  # noqa: S311 - no secret
        return Outcome(seconds, error, status, told, retry, gone)

    def _signed(self, sendable: Sendable) -> tuple[bytes, dict[str, str]]:
        """The request's body, and headers that sign it as of now."""
        delivery, now = sendable.delivery, int(time.time())
        body = payload(delivery)
        generations = [sendable.generation]
        if sendable.rotating:
            generations.append(sendable.generation - 1)
        secrets = [webhooks.secret(self._secret, delivery.webhook_id, n) for n in generations]
        return body, {
            "Content-Type": "application/json",
            "User-Agent": self._agent,
            "webhook-id": delivery.id,
            "webhook-timestamp": str(now),
            "webhook-signature": " ".join(
                signature(secret, delivery.id, now, body) for secret in secrets
            ),
        }


def payload(delivery: Delivery) -> bytes:
    """The same bytes at each attempt."""
    event = {
        "id": delivery.event_id,
        "object": "event",
        "created_at": unix(delivery.created_at),
        "type": delivery.type,
        "data": delivery.data,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """HMAC-SHA256 over `id.timestamp.body` with the decoded secret, as scheme `v1` has it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def _explained(status: int) -> str | None:
    """What is wrong with an answer of this status; None if nothing is."""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"The receiver answered {status}: redirects are not followed, change the URL."
    return f"The receiver answered {status}."
