"""Base models of the hub on this machine's disk: fetched by a child that can be ended at any time,
kept for later jobs, removed when others need the room.

Who uses one says so by a note in its scratch folder (`worker/scratch.py`) and goes on using it for
as long as that is there, so nothing of it is removed meanwhile, by other processes on this disk
either; and the note of a killed process goes with its folder.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import HFCacheInfo, scan_cache_dir
from huggingface_hub.file_download import repo_folder_name

from core import child
from models import catalogue
from models.catalogue import BaseModel, ModelUnavailable
from worker.context import Context
from worker.scratch import JOBS, VALIDATION

NOTE = "base_model"
"""Names the folder of the hub's cache that is in use."""
LONGEST_SECONDS = 24 * 3600.0
PASSED_ON = ("PATH", "HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CACHE_HOME")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

log = logging.getLogger(__name__)


def obtain(
    context: Context, model: BaseModel, files: list[str], folder: Path, check: Callable[[], None]
) -> Path:
    """The folder with the model's files, for as long as `folder` is there: an attempt's, or a
    validation's.

    Raises ModelUnavailable or OSError, and what `check` raises, which is asked while it is fetched
    whether to go on. The files that are whole by then are kept for the next try.
    """
    if model.path is not None:
        return model.path
    cache = _cache(context)
    with _alone(cache):
        (folder / NOTE).write_text(repo_folder_name(repo_id=model.repo, repo_type="model"))
    found = catalogue.kept(model, cache, files)
    if found is None:
        make_room(context)
        found = _fetch(model, cache, files, check)
        make_room(context)
    if found.is_relative_to(cache):
        os.utime(found)
    return found


def make_room(context: Context) -> None:
    """Remove the revisions that were not used for longest until all take no more than the setting
    says, and files that came in part, which the hub's client never goes on with; but nothing of a
    model that is in use."""
    cache = _cache(context)
    with _alone(cache):
        found, used = scan_cache_dir(cache), _used(context)
        for part in found.incomplete_files:
            if part.file_path.relative_to(cache).parts[0] not in used:
                part.file_path.unlink(missing_ok=True)
        excess = found.size_on_disk - context.settings.hub_cache_bytes
        if doomed := _doomed(found, used, excess):
            found.delete_revisions(*doomed).execute()
            log.info("base models made room for others: %s", ", ".join(doomed))


def _doomed(found: HFCacheInfo, used: set[str], excess: int) -> list[str]:
    """The commits to remove. Revisions share files, so what each frees hangs on the others."""
    spare = [
        (revision.snapshot_path.stat().st_mtime, revision.commit_hash)
        for repo in found.repos
        if repo.repo_path.name not in used
        for revision in repo.revisions
    ]
    doomed: list[str] = []
    for _, commit in sorted(spare):
        if found.delete_revisions(*doomed).expected_freed_size >= excess:
            break
        doomed.append(commit)
    return doomed


def _used(context: Context) -> set[str]:
    names = set()
    for kind in (JOBS, VALIDATION):
        for note in context.scratch(kind).glob(f"*/{NOTE}"):
            with suppress(FileNotFoundError):  # It has just ended.
                names.add(note.read_text())
    return names


def _cache(context: Context) -> Path:
    return context.scratch("cache", "hub").resolve()


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Between looking for what is in use and removing the rest, nothing may come into use."""
    with cache.with_name("hub.lock").open("w") as file:
        with suppress(OSError):  # A file system that keeps no locks.
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(model: BaseModel, cache: Path, files: list[str], check: Callable[[], None]) -> Path:
    request = {"name": model.name, "revision": model.revision, "cache": str(cache), "files": files}
    failed = f"The model {model.name!r} could not be downloaded:"
    try:
        ended = child.ask(
            [sys.executable, "-P", "-m", "worker.hub_model", str(os.getpid())],
            json.dumps(request).encode(),
            env=_environment(),
            seconds=LONGEST_SECONDS,
            check=check,
            cwd=cache,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelUnavailable(f"{failed} it took longer than a day.") from error
    if ended.returncode != 0:
        told = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
        why = " ".join(told) or f"the process that did so ended with {ended.returncode}"
        raise ModelUnavailable(f"{failed} {why}")
    reply = json.loads(ended.stdout)
    if "errno" in reply:
        raise OSError(reply["errno"], os.strerror(reply["errno"]))
    if "unavailable" in reply:
        raise ModelUnavailable(reply["unavailable"])
    return Path(reply["path"])


def _environment() -> dict[str, str]:
    """What the hub's client goes by, its token among it, and no credentials of our own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name.lower() in PROXIES or name.startswith(("HF_", "HUGGING_FACE_"))
    }
    return kept | {
        "LC_ALL": "C.UTF-8",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
