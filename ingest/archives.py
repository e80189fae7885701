"""Archives of files, read without unpacking them: zip, and tar (plain, after `unpack`).

Refused before any entry is read: links and devices, names that are absolute or climb with `..`,
names given twice, encrypted entries, and declared sizes beyond the limits. While an entry is read
it may not exceed what it declared, so a lying header buys nothing.
"""

from __future__ import annotations

import errno
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, BinaryIO, cast

import pyarrow as pa

from ingest.limits import Limits
from ingest.problems import BadValue, Problems

_CHUNK = 1024**2
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ENOMEM)
# What the libraries raise on hostile or broken archives, seeks to nowhere (OSError) and
# compressions they do not know (NotImplementedError) included.
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError,
    NotImplementedError, RuntimeError, pa.ArrowException,
)  # fmt: skip


def unpack(source: Path, format: str, to: Path, limits: Limits, problems: Problems) -> None:
    """Decompress a gzip or zstd file, within the limits."""
    total = 0
    allowed = limits.ratio_free_bytes + limits.max_ratio * source.stat().st_size
    try:
        with pa.input_stream(source, compression=format) as packed, to.open("wb") as plain:
            while chunk := packed.read(_CHUNK):
                total += len(chunk)
                _within(total, min(allowed, limits.max_unpacked_bytes), problems)
                plain.write(chunk)
    except _BROKEN as error:
        _only_the_file(error)
        raise problems.fatal(
            "invalid_archive",
            f"the file cannot be decompressed ({error or type(error).__name__})",
            "Was the upload complete?",
        ) from None


def _only_the_file(error: Exception) -> None:
    """Raise again what is the machine's fault: no memory, no room, a broken disk."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in _MACHINE:
        raise error


def _within(total: int, allowed: int, problems: Problems) -> None:
    if total > allowed:
        raise problems.fatal(
            "archive_too_large",
            f"unpacked, it is larger than {allowed:,} bytes, the most for a file of its size",
            "Split it, or upload it less compressed.",
        )


class Archive:
    """The regular files of a zip or tar, by name."""

    def __init__(self, source: Path, format: str, limits: Limits, problems: Problems) -> None:
        self.limits = limits
        self.problems = problems
        self.sizes: dict[str, int] = {}
        self._open: dict[str, Callable[[], IO[bytes] | None]] = {}
        self.used: set[str] = set()
        """The entries that were opened."""
        self._total = 0
        self._packed = source.stat().st_size
        try:
            if format == "zip":
                self._file: zipfile.ZipFile | tarfile.TarFile = zipfile.ZipFile(source)
                self._list_zip(self._file)
            else:
                self._file = tarfile.TarFile(source)
                self._list_tar(self._file)
        except _BROKEN as error:
            _only_the_file(error)
            raise problems.fatal(
                "invalid_archive",
                f"the archive cannot be read ({str(error)[:200] or type(error).__name__})",
                "Was the upload complete?",
            ) from None

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def names(self) -> Iterable[str]:
        return self.sizes

    def alike(self, name: str) -> list[str]:
        """The entries whose last parts are this name, in whatever case and form of Unicode."""
        wanted = _folded(name)
        same = self._by_last_part.get(wanted.rpartition("/")[2], [])
        return [entry for entry in same if f"/{_folded(entry)}".endswith(f"/{wanted}")]

    @cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        entries: dict[str, list[str]] = {}
        for entry in self.sizes:
            entries.setdefault(_folded(PurePosixPath(entry).name), []).append(entry)
        return entries

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """An entry as a stream, which ends at its declared size. BadData if it is broken."""
        try:
            with self._opened(name) as stream:
                yield stream
        except _BROKEN as error:
            _only_the_file(error)
            raise self.problems.fatal(
                "invalid_archive",
                f"the entry cannot be read ({str(error)[:200] or type(error).__name__})",
                "Was the upload complete?",
                entry=name,
            ) from None

    def _opened(self, name: str) -> BinaryIO:
        self.used.add(name)
        # Of a tar, None stands for what is not a file, and such are not listed.
        return cast(BinaryIO, self._open[name]())

    def read(self, name: str) -> bytes:
        """An entry's bytes. BadValue if it is too large or broken."""
        if self.sizes[name] > self.limits.max_entry_bytes:
            raise BadValue(
                "entry_too_large",
                f"the entry has {self.sizes[name]:,} bytes, "
                f"and at most {self.limits.max_entry_bytes:,} are read",
            )
        try:
            with self._opened(name) as stream:
                return stream.read(self.sizes[name])
        except _BROKEN as error:
            _only_the_file(error)
            raise BadValue("invalid_archive", f"the entry cannot be read ({error})") from None

    def _list_zip(self, file: zipfile.ZipFile) -> None:
        for info in file.infolist():
            mode = info.external_attr >> 16
            if info.filename.endswith(("/", "\\")):
                continue
            if info.flag_bits & 1:
                raise self._refuse("encrypted_archive", "is encrypted", info.filename)
            if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
                raise self._refuse("unsafe_entry", "is a link or a device", info.filename)
            # Some packers on Windows write its own separator.
            name = info.filename.replace("\\", "/")
            self._add(name, info.file_size, partial(file.open, info))

    def _list_tar(self, file: tarfile.TarFile) -> None:
        for info in file:
            if info.isdir():
                continue
            if not info.isreg():
                raise self._refuse("unsafe_entry", "is a link or a device", info.name)
            self._add(info.name, info.size, partial(file.extractfile, info))

    def _add(self, name: str, size: int, opener: Callable[[], IO[bytes] | None]) -> None:
        path = PurePosixPath(name)
        if (
            not path.parts
            or path.is_absolute()
            or ".." in path.parts
            or "\\" in name
            or "\x00" in name
            or name[1:2] == ":"
        ):
            raise self._refuse(
                "unsafe_entry", "has a name that leads out of the archive, or none", name
            )
        clean = str(path)
        if clean in self.sizes:
            raise self._refuse("duplicate_entry", "is there twice", name)
        if (
            any(part.startswith(".") for part in path.parts)
            or path.parts[0] == "__MACOSX"
            or path.name == "Thumbs.db"
        ):
            return
        self.sizes[clean] = size
        self._open[clean] = opener
        if len(self.sizes) > self.limits.max_entries:
            raise self.problems.fatal(
                "archive_too_large",
                f"more than {self.limits.max_entries:,} entries",
                "Split the archive.",
            )
        self._total += size
        allowed = self.limits.ratio_free_bytes + self.limits.max_ratio * self._packed
        _within(self._total, min(allowed, self.limits.max_unpacked_bytes), self.problems)

    def _refuse(self, code: str, what: str, name: str) -> Exception:
        return self.problems.fatal(
            code, f"the entry {what}", "Pack plain files only.", entry=name[:200]
        )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
