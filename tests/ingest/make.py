"""Files for the tests, made when they are asked for."""

from __future__ import annotations

import io
import json
import math
import random
import struct
import tarfile
import wave
import zipfile
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Files = Mapping[str, bytes | str]


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def zipped(files: Files, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tarred(files: Files, mode: str = "w") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def zstd(data: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(data)
    return packed.getvalue().to_pybytes()


def parquet(rows: list[dict[str, Any]] | pa.Table, metadata: Any = None) -> bytes:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    packed = io.BytesIO()
    pq.write_table(table, packed)
    return packed.getvalue()


def image(
    width: int = 12, height: int = 10, colour: int = 0, format: str = "PNG", **save: Any
) -> bytes:
    packed = io.BytesIO()
    Image.new("RGB", (width, height), (colour, 90, 160)).save(packed, format, **save)
    return packed.getvalue()


def noise(format: str, side: int = 200) -> bytes:
    """A picture whose data is far longer than its header."""
    picture = Image.frombytes("L", (side, side), random.Random(5).randbytes(side * side))
    packed = io.BytesIO()
    picture.save(packed, format)
    return packed.getvalue()


def mask(width: int = 12, height: int = 10, values: tuple[int, ...] = (0, 1)) -> bytes:
    """A grey PNG whose columns cycle through the values."""
    picture = Image.new("L", (width, height))
    picture.putdata([values[x % len(values)] for _ in range(height) for x in range(width)])
    packed = io.BytesIO()
    picture.save(packed, "PNG")
    return packed.getvalue()


def sound(
    seconds: float = 0.5, rate: int = 8000, level: float = 0.3, hertz: float = 440.0
) -> bytes:
    frames = [
        int(max(-1.0, min(1.0, level * math.sin(2 * math.pi * hertz * n / rate))) * 32767)
        for n in range(int(seconds * rate))
    ]
    packed = io.BytesIO()
    with wave.open(packed, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(rate)
        recording.writeframes(struct.pack(f"<{len(frames)}h", *frames))
    return packed.getvalue()


def floating(last: float) -> bytes:
    """A WAV of 32-bit floating numbers, of which the last is this one."""
    samples = struct.pack("<100f", *[0.1] * 99, last)
    form = struct.pack("<HHIIHH", 3, 1, 8000, 32000, 4, 32)
    chunks = b"".join(
        name + struct.pack("<I", len(data)) + data
        for name, data in ((b"fmt ", form), (b"data", samples))
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def floats() -> bytes:
    """A TIFF of 32-bit floating numbers."""
    packed = io.BytesIO()
    Image.new("F", (12, 10), 0.5).save(packed, "TIFF")
    return packed.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\x00"))
        + chunk(b"IEND", b"")
    )


def coco(**changes: Any) -> str:
    document: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.png", "width": 12, "height": 10}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 3,
                "bbox": [1, 2, 4, 5],
                "segmentation": [[1, 2, 5, 2, 5, 7, 1, 7]],
                "iscrowd": 0,
            }
        ],
        "categories": [{"id": 3, "name": "valve"}],
    }
    return json.dumps(document | changes)
