"""A model as one tar archive, of known length before a byte of it is read.

POSIX tar (pax), uncompressed: weights don't compress, and only so can a range of it be served. The
same model gives the same bytes every time, so a broken download can be continued.
"""

from __future__ import annotations

import hashlib
import re
import tarfile

from api.download import Download, Inline, Stored
from core.clock import unix
from models.registry import FineTunedModel

MEDIA_TYPE = "application/x-tar"
_END = bytes(2 * tarfile.BLOCKSIZE)


def archive(model: FineTunedModel) -> Download:
    """The model's files below one folder that is named after it."""
    folder = re.sub(r"[^A-Za-z0-9._-]+", "-", model.id).strip(".-")
    segments: list[Inline | Stored] = []
    digest = hashlib.sha256()
    for file in model.files:
        header = _header(f"{folder}/{file['path']}", file["bytes"], unix(model.created_at))
        padding = bytes(-file["bytes"] % tarfile.BLOCKSIZE)
        stored = Stored(f"{model.prefix}/{file['path']}", file["bytes"])
        segments += [Inline(header), stored, Inline(padding)]
        digest.update(header + file["sha256"].encode())
    segments.append(Inline(_END))
    return Download(segments, digest.hexdigest(), f"{folder}.tar", MEDIA_TYPE)


def _header(path: str, size: int, mtime: int) -> bytes:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mtime, entry.mode = size, mtime, 0o644
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
