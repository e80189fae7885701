"""Logs: one line a record on standard error, as text or JSON, with job and request ids.

A record may carry `extra={"job_id": …}`; what `bound` names is on every record of its block, those
of libraries too. Keys and dataset rows never belong in a log; anything that looks like an API key
or a webhook's secret is masked all the same, since libraries log URLs and headers of their own
accord.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Literal

from core.clock import now

KEY_PREFIX = "lk-"
_KEY = re.compile(rf"\b(?:{KEY_PREFIX}[0-9a-z]{{6}}[0-9A-Za-z_-]+|whsec_[0-9A-Za-z+/=]+)")
CHATTY = (
    "httpx",
    "httpcore",
    "urllib3",
    "uvicorn.access",
    "alembic",
    # Every tick of the beat would be five lines.
    "celery.beat",
    "celery.app.trace",
    "celery.worker.strategy",
)
_IDS = ("request_id", "job_id", "fence", "worker_id")
_FIELDS = (*_IDS, "method", "route", "status", "milliseconds")
"""Beside the message in JSON; a line of text has its numbers in the message."""

_bound: ContextVar[Mapping[str, object]] = ContextVar("bound", default=MappingProxyType({}))


@contextmanager
def bound(**names: object) -> Iterator[None]:
    """Put ids on all records of this block, in this thread or task. Blocks may be nested."""
    token = _bound.set({**_bound.get(), **names})
    try:
        yield
    finally:
        _bound.reset(token)


def _context(record: logging.LogRecord, names: tuple[str, ...]) -> dict[str, object]:
    around = _bound.get()
    found = {name: getattr(record, name, None) or around.get(name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def masked(text: str) -> str:
    """The text with API keys cut to their first characters."""
    return _KEY.sub(lambda found: found[0][:9] + "…", text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        context = "".join(f" {name}={v}" for name, v in _context(record, _IDS).items())
        return masked(super().format(record) + context)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": now().isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= _context(record, _FIELDS)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return masked(json.dumps(entry, ensure_ascii=False, default=str))


def configure(format: Literal["text", "json"], level: str) -> None:
    """Send this process's logs to standard error in the given format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Json() if format == "json" else _Text("%(asctime)s %(levelname)-7s %(name)s %(message)s")
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel("WARNING")
