"""Logs: one line a record on standard error, as text or JSON, with job and request ids.

A record may carry `extra={"job_id": …, "request_id": …}`. Keys and dataset rows never belong in a
log; anything that looks like an API key is masked all the same, since libraries log URLs and
headers of their own accord.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Literal

from core.clock import now

KEY_PREFIX = "lk-"
_KEY = re.compile(rf"\b{KEY_PREFIX}[0-9a-z]{{6}}[0-9A-Za-z_-]+")
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
_CONTEXT = ("request_id", "job_id", "fence", "worker_id")


def masked(text: str) -> str:
    """The text with API keys cut to their first characters."""
    return _KEY.sub(lambda found: found[0][:9] + "…", text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        context = "".join(
            f" {name}={value}" for name in _CONTEXT if (value := getattr(record, name, None))
        )
        return masked(super().format(record)) + context


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": now().isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: v for name in _CONTEXT if (v := getattr(record, name, None))}
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
