"""The child that fetches a dataset of the hub: its data files as they lie there, nothing that runs.

Parquet is looked for at the revision, then, if none was asked for, in the hub's own conversion; the
shards of a split are joined into one file. Where there is no Parquet, a split that is one file of
another format is taken as it is. Dataset scripts and pickles are never touched.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2
import pyarrow.parquet as pq
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from core.errors import DISK_FAULTS
from core.parent import die_with_parent

CONVERTED = "refs/convert/parquet"
AS_THEY_ARE = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".jsonl.gz", ".csv.gz", ".jsonl.zst")
MEMORY_BYTES = 4 * 1024**3
BATCH_ROWS = 1024


class Fault(Exception):
    """What the user can mend, with its code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Entry:
    path: str
    size: int


def fetch(request: dict[str, Any]) -> None:
    """Write the split to `to`. Raises Fault, or what the hub's client raises."""
    api = HfApi()
    repo, revision = request["repo"], request["revision"]
    commit, listed = _entries(api, repo, revision)
    chosen = _choose(listed, request, (".parquet",))
    if not chosen and revision is None:
        try:
            converted, entries = _entries(api, repo, CONVERTED)
        except RevisionNotFoundError:
            entries = []
        if found := _choose(entries, request, (".parquet",)):
            commit, chosen = converted, found
    if not chosen:
        chosen = _choose(listed, request, AS_THEY_ARE)
        if len(chosen) > 1:
            raise Fault(
                "source_unreadable",
                f"The split {request['split']!r} of {repo} is {len(chosen)} files that are not "
                "Parquet. Join them and upload the result.",
            )
    if not chosen:
        raise Fault(
            "source_not_found",
            f"{repo} has no data for the split {request['split']!r}"
            + (f" of {request['config']!r}" if request["config"] else "")
            + f". Its data files: {', '.join(_data_files(listed)[:10]) or 'none'}.",
        )
    size = sum(entry.size for entry in chosen)
    if size > request["limit"]:
        raise Fault(
            "source_too_large",
            f"{repo} has {size} bytes of it; this server takes {request['limit']}.",
        )
    to = Path(request["to"])
    local = [
        Path(
            api.hf_hub_download(
                repo, entry.path, repo_type="dataset", revision=commit, local_dir=to.parent / "hub"
            )
        )
        for entry in chosen
    ]
    _join(local, to)


def _entries(api: HfApi, repo: str, revision: str | None) -> tuple[str, list[Entry]]:
    """The commit that the revision is at this moment, and its files."""
    info = api.dataset_info(repo, revision=revision, files_metadata=True)
    found = [Entry(file.rfilename, file.size or 0) for file in info.siblings or []]
    return str(info.sha), found


def _choose(entries: list[Entry], request: dict[str, Any], endings: tuple[str, ...]) -> list[Entry]:
    """The files of the split, in the order of their shards. Raises Fault where it is not sure of
    which configuration they are."""
    by_config: dict[str, list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: entry.path):
        path = PurePosixPath(entry.path)
        if path.name.lower().endswith(endings) and _is_of_split(path, request["split"]):
            folders = [part for part in path.parts[:-1] if part not in ("data", request["split"])]
            by_config[folders[0] if folders else "default"].append(entry)
    wanted = request["config"]
    if wanted is not None:
        return by_config.get(wanted, [])
    if len(by_config) > 1:
        if "default" in by_config:
            return by_config["default"]
        raise Fault(
            "source_ambiguous",
            f"{request['repo']} has several configurations: {', '.join(sorted(by_config)[:20])}. "
            "Name one: hf://datasets/owner/name/CONFIG:split.",
        )
    return next(iter(by_config.values()), [])


def _is_of_split(path: PurePosixPath, split: str) -> bool:
    """`train/0000.parquet`, `train-00000-of-00002.parquet`, `data/train.csv`."""
    stem = path.name.split(".", 1)[0]
    return split in path.parts[:-1] or stem == split or stem.startswith((f"{split}-", f"{split}_"))


def _data_files(entries: list[Entry]) -> list[str]:
    return [entry.path for entry in entries if entry.path.endswith((".parquet", *AS_THEY_ARE))]


def _join(shards: list[Path], to: Path) -> None:
    """One file of all rows; shards of other columns than the first's are refused by the writer."""
    if len(shards) == 1:
        shutil.move(shards[0], to)
        return
    with pq.ParquetWriter(to, pq.read_schema(shards[0])) as writer:
        for shard in shards:
            with pq.ParquetFile(shard) as file:
                for batch in file.iter_batches(BATCH_ROWS):
                    writer.write_batch(batch)


def main() -> None:
    # The child must not outlive its parent, which alone would take what it brings.
    die_with_parent(int(sys.argv[1]))
    request = json.load(sys.stdin)
    # Joined shards may come out a little larger than they went in.
    most = 2 * int(request["limit"])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    reply: dict[str, Any] = {}
    try:
        fetch(request)
    except Fault as fault:
        reply = {"fault": str(fault), "code": fault.code}
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
        asked = request["repo"] + (f"@{request['revision']}" if request["revision"] else "")
        reply = {
            "fault": f"The hub has no public dataset {asked}. Check its name and revision; of a "
            "gated or private one, download the data and upload it.",
            "code": "source_not_found",
        }
    except (httpx2.HTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        reply = {"unavailable": f"{type(error).__name__}: {error}"[:500]}
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        reply = {"errno": error.errno}  # The machine's fault, not the data's.
    json.dump(reply, sys.stdout)


if __name__ == "__main__":
    main()
