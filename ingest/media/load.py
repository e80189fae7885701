"""From a cell to the bytes of its image, mask or recording, and what they show."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from ingest.archives import Archive
from ingest.kinds import type_name
from ingest.limits import Limits
from ingest.problems import BadValue, shorten


def load(target: str, value: Any, archive: Archive | None, limits: Limits) -> dict[str, Any]:
    """The row's members under `target`, which is `image`, `mask` or `audio`.

    `value` is the name of an entry or, in Parquet, the bytes, alone or as {bytes, path}.
    """
    name, data = _bytes(target, value, archive)
    if target == "audio":
        from ingest.media import audio  # here, so that text tasks load no decoder

        return {"audio": data, "file": name} | audio.inspect(data, limits)
    from ingest.media import images

    if target == "mask":
        size, ids = images.class_ids(data, limits)
        return {"mask": data, "mask_size": size, "mask_ids": ids}
    return {"image": data, "file": name} | images.inspect(data, limits)


def _bytes(target: str, value: Any, archive: Archive | None) -> tuple[str | None, bytes]:
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return value.get("path"), value["bytes"]
    if isinstance(value, bytes):
        return None, value
    if isinstance(value, dict) and "path" in value:
        raise BadValue(
            "missing_file",
            "only the file's path is there, not its `bytes`",
            "Embed the files' bytes when you write the Parquet file.",
        )
    if not isinstance(value, str):
        raise BadValue(
            "wrong_type",
            f"a file's bytes or its file name expected, found {type_name(value)}",
            "Give the bytes of an image or audio file as it lies on disk, not pixels or samples.",
        )
    shown = shorten(value)
    if archive is None:
        raise BadValue(
            "missing_file",
            f"`{shown}` is not in the upload",
            "Pack the files and this table into one zip. In Parquet, files come as bytes, not in "
            "base64.",
        )
    if value not in archive.sizes:
        raise BadValue(
            "missing_file",
            f"the archive has no `{shown}`",
            "Each image has one." if target == "mask" else _elsewhere(value, archive),
        )
    return value, archive.read(value)


def _elsewhere(name: str, archive: Archive) -> str:
    """What to do about a name that no entry has."""
    hint = "Names are relative to the table that gives them."
    alike = archive.alike(PurePosixPath(name.replace("\\", "/")).name)
    if not alike:
        return hint
    shown = ", ".join(f"`{shorten(entry)}`" for entry in alike[:3])
    return f"{hint} There is {shown}."
