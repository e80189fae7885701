"""Recordings: decoded block by block, to know their length and that there is sound in them."""

from __future__ import annotations

import io
import re
import struct
from typing import Any

from ingest.limits import Limits
from ingest.problems import BadValue

_BLOCK = 65536
SILENT = 1e-4
"""A peak below this (-80 dBFS) is silence."""
CLIPPED_SHARE = 0.01
"""Samples at full scale beyond which a recording is clipped."""
_OBJECT = re.compile(r"^Error opening <[^>]*>: ")
_HEADER = struct.Struct("<4sI")
_UNTOLD = 0x7FFFF000
"""From this size on a WAV's header says that the writer did not know how long it would become."""


def inspect(data: bytes, limits: Limits) -> dict[str, Any]:
    """`sampling_rate`, `seconds` and a list of `remarks`. Raises BadValue."""
    import numpy as np  # here, so that text tasks load neither
    import soundfile

    if _cut_off(data):
        raise BadValue(
            "unreadable_audio",
            "the recording is cut off: its header tells of more than there is",
            "Copy or save it again, or leave it out.",
        )
    frames, peak, full = 0, 0.0, 0
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            rate = int(sound.samplerate)
            seconds = sound.frames / rate if rate > 0 else 0.0
            if seconds > limits.max_seconds:
                raise BadValue(
                    "audio_too_long",
                    f"{seconds:,.0f} seconds, and at most {limits.max_seconds:,.0f} are read",
                    "Cut it into pieces.",
                )
            for block in sound.blocks(_BLOCK, dtype="float32", always_2d=True):
                if not np.isfinite(block).all():
                    raise BadValue(
                        "not_finite",
                        "the recording has samples that are infinite or no number",
                        "Save it with whole numbers, such as 16 bits a sample, or leave it out.",
                    )
                levels = np.abs(block)
                frames += len(block)
                peak = max(peak, float(levels.max(initial=0.0)))
                full += int((levels >= 0.999).any(axis=1).sum())
                if frames > limits.max_seconds * rate:
                    raise BadValue("audio_too_long", "longer than its header says")
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        raise BadValue(
            "unreadable_audio",
            f"the recording cannot be decoded ({_OBJECT.sub('', str(error))[:120]})",
            "WAV, FLAC, OGG and MP3 are read.",
        ) from None
    if frames == 0:
        raise BadValue("empty_audio", "the recording has no samples", "Leave it out.")
    remarks = []
    if peak < SILENT:
        remarks.append(("silent_audio", "the recording is silent"))
    elif full > CLIPPED_SHARE * frames:
        remarks.append(("clipped_audio", "the recording is clipped"))
    return {"sampling_rate": rate, "seconds": frames / rate, "remarks": remarks}


def _cut_off(data: bytes) -> bool:
    """Whether a WAV ends before its samples do, which the decoder would pass over.

    Chunks are a name, a size and as many bytes, filled up to an even number.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return False
    at = 12
    while at + _HEADER.size <= len(data):
        name, size = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        if name == b"data":
            return bool(at + size > len(data) and size < _UNTOLD)
        at += size + size % 2
    return False
