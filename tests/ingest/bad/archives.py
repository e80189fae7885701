"""Archives that lie, climb, or burst."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile

from ingest.limits import Limits
from tests.ingest.bad import Bad
from tests.ingest.make import image, lines, tarred, zipped, zstd

GOOD = lines({"text": "fine", "label": "pos"}, {"text": "dull", "label": "neg"})
IMAGES = "image-classification"
TIGHT = Limits(ratio_free_bytes=100_000, max_ratio=50)


def link(name: str, target: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
    return packed.getvalue()


def tar_of(kind: bytes, name: str = "train.jsonl", target: str = "/etc/passwd") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.linkname = target
        archive.addfile(info)
    return packed.getvalue()


def twice(name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, GOOD)
        archive.writestr("./" + name, GOOD)
    return packed.getvalue()


def encrypted() -> bytes:
    """A zip whose entry says that it is encrypted, in both of its headers."""
    packed = bytearray(zipped({"train.jsonl": GOOD}))
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(magic) + flags] |= 1
    return bytes(packed)


def patched() -> bytes:
    """A zip whose entry says that it is a patch of another file."""
    packed = bytearray(zipped({"train.jsonl": GOOD}))
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(magic) + flags] |= 0x20
    return bytes(packed)


def misplaced() -> bytes:
    """A zip whose directory places its entry outside of the file."""
    packed = bytearray(zipped({"train.jsonl": GOOD}))
    at = packed.index(b"PK\x01\x02") + 42
    packed[at : at + 4] = b"\xff\xff\xff\x7f"
    return bytes(packed)


def understated() -> bytes:
    """A zip whose entry unpacks to more than its directory says."""
    content = b"x" * 1_000_000
    packed = bytearray(zipped({"a/1.png": content, "b/1.png": image()}))
    at = packed.index(b"PK\x01\x02") + 24
    packed[at : at + 4] = struct.pack("<I", 1000)
    return bytes(packed)


def sparse() -> bytes:
    """A tar with a header that claims a petabyte and holds nothing."""
    info = tarfile.TarInfo("train.jsonl")
    info.size = 10**15
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


CASES = [
    Bad("the zip magic alone", b"PK\x03\x04", "invalid_archive", None, "cannot be read"),
    Bad("a zip cut off", zipped({"train.jsonl": GOOD})[:-30], "invalid_archive", None, "upload"),
    Bad("an empty zip", zipped({}), "no_rows", None, "no data file"),
    Bad("a zip of folders", zipped({"data/": b""}), "no_rows", None, "no data file"),
    Bad("a zip with a broken entry",
        zipped({"train.jsonl": GOOD}, zipfile.ZIP_STORED).replace(b"fine", b"find"),
        "invalid_archive", "train.jsonl", "CRC"),
    Bad("a zip that points nowhere", misplaced(), "invalid_archive", "train.jsonl",
        "cannot be read"),
    Bad("a zip of patches", patched(), "invalid_archive", "train.jsonl", "cannot be read"),
    Bad("a zip with a dot for a name", zipped({".": GOOD}), "unsafe_entry", ".", "or none"),
    Bad("a zip without a name", zipped({"QQ": GOOD}).replace(b"QQ", b"\x00Q"), "unsafe_entry", "",
        "or none"),
    Bad("a zip with a link", link("train.jsonl", "/etc/passwd"), "unsafe_entry", "train.jsonl",
        "a link"),
    Bad("a zip that climbs", zipped({"../../etc/cron.d/x": GOOD}), "unsafe_entry",
        "../../etc/cron.d/x", "leads out"),
    Bad("a zip from the root", zipped({"/etc/passwd": GOOD}), "unsafe_entry", "/etc/passwd",
        "leads out"),
    Bad("a zip with a drive", zipped({"C:/x.jsonl": GOOD}), "unsafe_entry", "C:/x.jsonl",
        "leads out"),
    Bad("a zip with backslashes", zipped({"..\\x.jsonl": GOOD}), "unsafe_entry", "../x.jsonl",
        "leads out"),
    Bad("a name twice", twice("train.jsonl"), "duplicate_entry", "./train.jsonl", "twice"),
    Bad("an encrypted zip", encrypted(), "encrypted_archive", "train.jsonl", "encrypted"),
    Bad("a zip bomb", zipped({"train.jsonl": bytes(20_000_000)}), "archive_too_large", None,
        "larger than", limits=TIGHT),
    Bad("many small bombs", zipped({f"{n}.jsonl": bytes(200_000) for n in range(100)}),
        "archive_too_large", None, "larger than", limits=TIGHT),
    Bad("an entry that says less than it holds", understated(), "invalid_archive", "a/1.png",
        "cannot be read", task=IMAGES),
    Bad("too many entries", zipped({f"{n}.png": b"" for n in range(20)}), "archive_too_large", None,
        "more than 10", limits=Limits(max_entries=10)),
    Bad("a zip in a zip", zipped({"inner.zip": zipped({"train.jsonl": GOOD})}),
        "unsupported_format", None, "inside of another"),
    Bad("a spreadsheet", zipped({"[Content_Types].xml": b"<x/>", "xl/workbook.xml": b"<x/>"}),
        "unsupported_format", None, "Excel"),
    Bad("two data files", zipped({"train.jsonl": GOOD, "test.jsonl": GOOD}), "several_files", None,
        "2 files: test.jsonl, train.jsonl"),
    Bad("a bad line in a zip", zipped({"in/train.jsonl": GOOD + b"{"}), "invalid_json", 3,
        "train.jsonl/in/train.jsonl line 3"),
    Bad("a tar with a link", tar_of(tarfile.SYMTYPE), "unsafe_entry", "train.jsonl", "a link"),
    Bad("a tar with a hard link", tar_of(tarfile.LNKTYPE), "unsafe_entry", "train.jsonl", "a link"),
    Bad("a tar with a device", tar_of(tarfile.CHRTYPE), "unsafe_entry", "train.jsonl", "a device"),
    Bad("a tar with a pipe", tar_of(tarfile.FIFOTYPE), "unsafe_entry", "train.jsonl", "a device"),
    Bad("a tar that climbs", tarred({"../train.jsonl": GOOD}), "unsafe_entry", "../train.jsonl",
        "leads out"),
    Bad("a tar from the root", tarred({"/train.jsonl": GOOD}), "unsafe_entry", "/train.jsonl",
        "leads out"),
    Bad("a tar that claims a petabyte", sparse(), "archive_too_large", None, "larger than"),
    Bad("a tar cut off", tarred({"train.jsonl": GOOD * 100})[:1024], "invalid_archive", None,
        "upload complete"),
    Bad("gzip cut off", gzip.compress(GOOD * 100)[:-20], "invalid_archive", None, "decompressed"),
    Bad("gzip of noise", b"\x1f\x8b" + bytes(range(100)), "invalid_archive", None, "decompressed"),
    Bad("a gzip bomb", gzip.compress(bytes(20_000_000)), "archive_too_large", None, "larger than",
        limits=TIGHT),
    Bad("a zstd bomb", zstd(bytes(20_000_000)), "archive_too_large", None, "larger than",
        limits=TIGHT),
    Bad("zstd of noise", b"\x28\xb5\x2f\xfd" + bytes(range(100)), "invalid_archive", None,
        "decompressed"),
    Bad("gzip in gzip", gzip.compress(gzip.compress(GOOD)), "unsupported_format", None,
        "gzip file inside"),
    Bad("a climbing tar in gzip", gzip.compress(tarred({"../x": GOOD})), "unsafe_entry", "../x",
        "leads out"),
]  # fmt: skip
