"""Encoded rows, kept on this machine's disk for the next attempt and for other jobs.

A file is named by what makes it: the data's bytes, the tokenizer as it is loaded (a checkpoint's is
written differently from the base model's, and encodes alike), the settings of the encoding, and the
code. Behind that stands the hash of its own bytes, so that a file that was cut off or has rotted is
known for what it is, and is made anew. It is Arrow of one batch, which is read mapped into memory.
The worker removes what was not used for longest.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import tokenizers
import transformers

from training.sequences import Sequences

TOKENS = "tokens."
"""Before the name of a model's input."""


class References(Sequence[Any]):
    """What rows are compared with, unpacked when a batch wants it."""

    def __init__(self, packed: pa.Array, unpack: Callable[[Any], Any]) -> None:
        self._packed, self._unpack = packed, unpack

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        return self._unpack(json.loads(self._packed[int(row)].as_py()))


def key(data: Path, tokenizer: Any, settings: dict[str, Any]) -> str | None:
    """What a file is named by; None for a tokenizer that is code and cannot be told by content."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    # Encoding leaves these two behind, and sets them itself.
    rules = {
        name: part
        for name, part in json.loads(backend.to_str()).items()
        if name not in ("truncation", "padding")
    }
    written = [tokenizer.chat_template, tokenizer.special_tokens_map, tokenizer.truncation_side]
    parts = [_digest(data), rules, written, settings, _code()]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _code() -> list[str]:
    """The engine's sources, and the versions of what they encode by."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    return [sources.hexdigest(), transformers.__version__, tokenizers.__version__]


def kept(
    folder: Path,
    key: str,
    encode: Callable[[], Sequences],
    *,
    pack: Callable[[Any], Any],
    unpack: Callable[[Any], Any],
    log: Callable[[str], None],
) -> Sequences:
    """The encoded rows of this key, encoded now if there is no whole file of them."""
    found = _found(folder, key, unpack)
    if found is not None:
        return found
    examples = encode()
    try:
        path = _written(folder, key, examples, pack)
        return _opened(path, unpack)
    except OSError as error:
        log(f"The encoded rows could not be kept for later runs: {error.strerror or error}.")
        return examples


def _found(folder: Path, key: str, unpack: Callable[[Any], Any]) -> Sequences | None:
    for path in folder.glob(f"{key}.*.arrow"):
        try:
            if _digest(path) in path.name:
                os.utime(path)
                return _opened(path, unpack)
            path.unlink()
        except FileNotFoundError:
            continue  # Another process has made room.
    return None


def _written(folder: Path, key: str, examples: Sequences, pack: Callable[[Any], Any]) -> Path:
    """Renamed once it is written. Nothing is flushed: its name tells what should stand in it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(suffix=".part", dir=folder)
    part = Path(name)
    try:
        batch = _batch(examples, pack)
        with os.fdopen(descriptor, "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        path = folder / f"{key}.{_digest(part)}.arrow"
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _batch(examples: Sequences, pack: Callable[[Any], Any]) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {"id": pa.array(examples.ids)}
    for name, values in examples.tokens.items():
        sequences = pa.LargeListArray.from_arrays(pa.array(examples.starts), pa.array(values))
        columns[TOKENS + name] = pa.LargeListArray.from_arrays(pa.array(examples.first), sequences)
    if examples.targets is not None:
        flat = pa.array(examples.targets.reshape(-1))
        wide = examples.targets.ndim == 2
        columns["target"] = (
            pa.FixedSizeListArray.from_arrays(flat, examples.targets.shape[1]) if wide else flat
        )
    if examples.written is not None:
        columns["written"] = pa.array(examples.written)
    if examples.references:
        packed = (json.dumps(pack(one)) for one in examples.references)
        columns["reference"] = pa.array(packed, pa.large_string())
    return pa.record_batch(columns)


def _opened(path: Path, unpack: Callable[[Any], Any]) -> Sequences:
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    names = [name for name in batch.schema.names if name.startswith(TOKENS)]
    first = batch.column(names[0])
    targets = None
    if "target" in batch.schema.names:
        column = batch.column("target")
        wide = pa.types.is_fixed_size_list(column.type)
        targets = (column.values if wide else column).to_numpy()
        targets = targets.reshape(len(batch), -1) if wide else targets
    return Sequences(
        ids=batch.column("id").to_numpy(),
        first=first.offsets.to_numpy(),
        starts=first.values.offsets.to_numpy(),
        tokens={
            name.removeprefix(TOKENS): batch.column(name).values.values.to_numpy() for name in names
        },
        targets=targets,
        references=(
            References(batch.column("reference"), unpack)
            if "reference" in batch.schema.names
            else []
        ),
        written=batch.column("written").to_numpy() if "written" in batch.schema.names else None,
    )
