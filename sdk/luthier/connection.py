"""Where the service is and which key opens it, when the caller doesn't say.

Arguments come first, then LUTHIER_BASE_URL and LUTHIER_API_KEY, then the data folder of a service
on this machine (`$LUTHIER_DATA_DIR` or `./luthier-data`), in which `luthier-server up` writes `url`
and `api_key`. A key from that folder is sent to that service alone: naming another address must
not carry the local key, or an OPENAI_API_KEY, to a stranger.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import openai

DEFAULT_URL = "http://127.0.0.1:8000/v1"


class NoConnection(openai.OpenAIError):
    """No key could be found for the service; the message says where it was looked for."""


class Connection(NamedTuple):
    base_url: str
    api_key: str


def data_dir() -> Path:
    return Path(os.environ.get("LUTHIER_DATA_DIR") or "luthier-data")


def find_url(base_url: str | None = None) -> str:
    """The API's base URL, ending in its version path."""
    local = _read(data_dir() / "url")
    return _with_version(base_url or os.environ.get("LUTHIER_BASE_URL") or local or DEFAULT_URL)


def find(base_url: str | None = None, api_key: str | None = None) -> Connection:
    """The URL and key to use. Raises NoConnection where there is no key."""
    url = find_url(base_url)
    key = api_key or os.environ.get("LUTHIER_API_KEY")
    if key:
        return Connection(url, key)

    folder = data_dir()
    local_url = _with_version(_read(folder / "url") or DEFAULT_URL)
    key = _read(folder / "api_key")
    if key and _same_service(url, local_url):
        return Connection(url, key)
    if key:
        raise NoConnection(
            f"No key for {url}: the one in {folder / 'api_key'} belongs to {local_url}. "
            "Set LUTHIER_API_KEY or pass api_key."
        )
    raise NoConnection(
        f"No key for {url}: LUTHIER_API_KEY is not set and {folder / 'api_key'} does not exist. "
        "Set LUTHIER_API_KEY, or set LUTHIER_DATA_DIR to the data folder of `luthier-server up`, "
        "or run this where that folder is."
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise NoConnection(
            f"{path} may not be read by this user. Set LUTHIER_BASE_URL and LUTHIER_API_KEY."
        ) from error


def _with_version(url: str) -> str:
    """`http://host:8000` means its API, which lies below /v1."""
    parts = urlsplit(url)
    return url.rstrip("/") + "/v1" if parts.path in ("", "/") else url


def _same_service(one: str, other: str) -> bool:
    return _origin(urlsplit(one)) == _origin(urlsplit(other))


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return parts.scheme, host, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
