"""Identifiers: a prefix that names the kind, then 48 bits of time and 80 of randomness.

Base32 in Crockford's order keeps them sortable by creation as plain text, as in ULID
(https://github.com/ulid/spec), so a cursor over ids is a cursor over time.
"""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def _base32(value: int, length: int) -> str:
    return "".join(_ALPHABET[(value >> (5 * i)) & 31] for i in reversed(range(length)))


def new(prefix: str) -> str:
    """A fresh id such as `file-01k…`: 26 characters after the prefix, 128 bits."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}{_base32(value, 26)}"


def file() -> str:
    return new("file-")


def job() -> str:
    return new("ftjob-")


def validation() -> str:
    return new("ftval-")


def event() -> str:
    return new("ftevent-")


def checkpoint() -> str:
    return new("ftckpt-")


def project() -> str:
    return new("proj-")


def key() -> str:
    return new("key-")


def worker() -> str:
    return new("worker-")


def request() -> str:
    return new("req-")
