"""From a cell to the bytes of its image, mask or recording, and what they show."""

from __future__ import annotations

from typing import Any

from ingest.archives import Archive
from ingest.kinds import type_name
from ingest.limits import Limits
from ingest.problems import BadValue


def load(target: str, value: Any, archive: Archive | None, limits: Limits) -> dict[str, Any]:
    """The row's members under `target`, which is `image`, `mask` or `audio`.

    `value` is the name of an entry or, in Parquet, the bytes, alone or as {bytes, path}.
    """
    name, data = _bytes(value, archive)
    if target == "audio":
        from ingest.media import audio  # here, so that text tasks load no decoder

        return {"audio": data, "file": name} | audio.inspect(data, limits)
    from ingest.media import images

    if target == "mask":
        size, ids = images.class_ids(data, limits)
        return {"mask": data, "mask_size": size, "mask_ids": ids}
    return {"image": data, "file": name} | images.inspect(data, limits)


def _bytes(value: Any, archive: Archive | None) -> tuple[str | None, bytes]:
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return value.get("path"), value["bytes"]
    if isinstance(value, bytes):
        return None, value
    if not isinstance(value, str):
        raise BadValue("wrong_type", f"a file name expected, found {type_name(value)}")
    if archive is None:
        raise BadValue(
            "missing_file",
            f"`{value}` is not in the upload",
            "Pack the files and this table into one zip.",
        )
    if value not in archive.sizes:
        raise BadValue(
            "missing_file",
            f"the archive has no `{value}`",
            "Names are relative to the table that gives them.",
        )
    return value, archive.read(value)
