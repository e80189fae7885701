"""Where a job's data may come from other than an upload: the hub, and folders of the administrator.

`hf://datasets/owner/name[@revision][/config][:split]` is a dataset of the Hugging Face hub, and
`folder://NAME/path/file` a file in a folder that the settings register. A user gives names and
relative parts, never a path of the server. What is named becomes a file like any other, whose bytes
the control worker brings (`worker/sources.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.errors import InvalidRequest
from core.settings import Settings

SCHEMES = ("hf://", "folder://")
LONGEST = 1024

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = re.compile(
    rf"hf://datasets/(?P<repo>{_NAME}/{_NAME})(@(?P<revision>{_NAME}))?"
    rf"(/(?P<config>{_NAME}))?(:(?P<split>{_NAME}))?"
)
_FOLDER = re.compile(rf"folder://(?P<name>{_NAME})/(?P<path>.+)")


@dataclass(frozen=True)
class HubSource:
    repo: str
    revision: str | None
    config: str | None
    split: str

    @property
    def filename(self) -> str:
        return "-".join(filter(None, (self.repo.split("/")[1], self.config, self.split)))


@dataclass(frozen=True)
class FolderSource:
    name: str
    parts: tuple[str, ...]
    """Of the path below the folder: none of them empty, `.` or `..`."""

    @property
    def filename(self) -> str:
        return self.parts[-1]


Source = HubSource | FolderSource


def is_source(text: str) -> bool:
    return text.startswith(SCHEMES)


def parse(text: str, param: str) -> Source:
    """What is named. Raises InvalidRequest for what cannot be meant."""
    if found := _HUB.fullmatch(text):
        return HubSource(
            found["repo"], found["revision"], found["config"], found["split"] or "train"
        )
    if found := _FOLDER.fullmatch(text):
        parts = tuple(found["path"].split("/"))
        if all(part.isprintable() and part not in ("", ".", "..") for part in parts):
            return FolderSource(found["name"], parts)
    raise InvalidRequest(
        f"{text!r} names no data. Write hf://datasets/owner/name[@revision][/config][:split], or "
        "folder://NAME/path/file with a path below the folder, without `..`.",
        param=param,
        code="invalid_source",
    )


def require_allowed(settings: Settings, source: Source, param: str) -> None:
    """Raises InvalidRequest for a source that the administrator has not opened."""
    if isinstance(source, HubSource) and not settings.hf_datasets:
        raise InvalidRequest(
            "Datasets of the hub are not open on this server. Upload the data, or ask the "
            "administrator to set LUTHIER_HF_DATASETS.",
            param=param,
            code="source_not_allowed",
        )
    if isinstance(source, FolderSource) and source.name not in settings.data_folders:
        known = ", ".join(sorted(settings.data_folders)) or "none"
        raise InvalidRequest(
            f"No data folder is registered as {source.name!r}; registered: {known}. Ask the "
            "administrator for it (LUTHIER_DATA_FOLDERS).",
            param=param,
            code="source_not_allowed",
        )
