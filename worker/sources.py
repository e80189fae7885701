"""Bringing data that is named, not uploaded: from the hub, or from an administrator's folder."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import models
from core import child
from core.errors import InvalidRequest, Unavailable
from models import sources
from models.sources import FolderSource, HubSource
from worker.context import Context

LONGEST_SECONDS = 6 * 3600.0
PASSED_ON = ("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")
"""No token among them: what the server may read, a user of it may not."""


def bring(
    context: Context, text: str, to: Path, param: str, check: Callable[[], None] | None = None
) -> None:
    """Write what `text` names to `to`.

    Raises InvalidRequest; Unavailable if the hub is away; OSError if the disk takes no more; and
    what `check` raises, which is asked while the hub is waited for.
    """
    source = sources.parse(text, param)
    sources.require_allowed(context.settings, source, param)
    if isinstance(source, HubSource):
        _from_hub(source, to, context.settings.max_upload_bytes, param, check)
    else:
        folder = context.settings.data_folders[source.name]
        _from_folder(folder, source, to, context.settings.max_upload_bytes, param)


def _from_folder(folder: Path, source: FolderSource, to: Path, limit: int, param: str) -> None:
    """Copy a file below the folder, following no link on the way to it: each part is opened in
    the one before, so that nothing that changes meanwhile leads out of the folder."""
    above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in source.parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            os.close(above)
            above = below
        # Not to hang at a pipe that stands there in place of a file.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        opened = os.open(source.parts[-1], flags, dir_fd=above)
    except OSError as error:
        raise InvalidRequest(
            f"folder://{source.name}/{'/'.join(source.parts)} cannot be read: "
            f"{os.strerror(error.errno or 0).lower()}. It must be a file below the registered "
            "folder, and no part of its path may be a link.",
            param=param,
            code="source_not_found",
        ) from error
    finally:
        os.close(above)
    found = os.fstat(opened)
    if not stat.S_ISREG(found.st_mode):
        os.close(opened)
        raise InvalidRequest(
            f"{source.filename} is not a plain file.", param=param, code="source_not_found"
        )
    with open(opened, "rb") as file:
        if found.st_size > limit:
            raise _too_large(found.st_size, limit, param)
        with to.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1024**2)


def _from_hub(
    source: HubSource, to: Path, limit: int, param: str, check: Callable[[], None] | None
) -> None:
    """Fetch in a child, which reads what strangers wrote: without credentials, and limited."""
    request = asdict(source) | {"to": str(to), "limit": limit}
    try:
        ended = child.ask(
            [sys.executable, "-m", "worker.hub_dataset", str(os.getpid())],
            json.dumps(request).encode(),
            env=_environment(to.parent),
            seconds=LONGEST_SECONDS,
            check=check,
        )
    except subprocess.TimeoutExpired:
        raise InvalidRequest(
            f"{source.repo} took longer than {LONGEST_SECONDS / 3600:.0f} hours to fetch.",
            param=param,
            code="source_too_large",
        ) from None
    if ended.returncode != 0:
        told = ended.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise InvalidRequest(
            f"{source.repo} could not be read ({' '.join(told) or ended.returncode}). "
            "Download what you need of it and upload that.",
            param=param,
            code="source_unreadable",
        )
    reply = json.loads(ended.stdout)
    if "errno" in reply:
        raise OSError(reply["errno"], os.strerror(reply["errno"]))
    if "unavailable" in reply:
        raise Unavailable(f"The hub is away: {reply['unavailable']}")
    if "fault" in reply:
        raise InvalidRequest(reply["fault"], param=param, code=reply["code"])


def _environment(scratch: Path) -> dict[str, str]:
    kept = {name: value for name in PASSED_ON if (value := os.environ.get(name))}
    return kept | {
        "PATH": os.defpath,
        "PYTHONPATH": str(Path(models.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
        "HF_HOME": str(scratch / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_ETAG_TIMEOUT": "10",
    }


def _too_large(size: int, limit: int, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"The data has {size} bytes; this server takes {limit}.",
        param=param,
        code="source_too_large",
    )
