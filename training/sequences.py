"""Encoded texts of a whole file in a few flat arrays, and the padded batches cut out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from core.errors import BadData

CHUNK_ROWS = 1000
MAX_REPORTED_ROWS = 20
IGNORED = -100
"""The target of a token that is not learnt: what torch's cross-entropy leaves out."""


@dataclass(frozen=True)
class Encoded:
    """A chunk of rows as a task's `encode` gives them."""

    tokens: dict[str, list[list[int]]]
    """By the name of the model's input (`labels` for targets): a list of numbers a sequence."""
    windows: list[int] | None = None
    """How many sequences each row has; None where it is one."""
    targets: npt.NDArray[Any] | None = None
    """What a row as a whole is to give, where that is one number or vector."""
    references: list[Any] = field(default_factory=list)
    """What the metrics compare a row with, where that is no number."""
    written: list[int] | None = None
    """How many tokens each row is to write, where these are not among its sequences'."""


@dataclass(frozen=True)
class Sequences:
    """Row i has the sequences `first[i]` to `first[i + 1]`; sequence j has the tokens `starts[j]`
    to `starts[j + 1]`. Where a long row was cut into windows it has more sequences than one. Row i
    of texts to be written has `written[i]` tokens beside its sequences'."""

    ids: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    tokens: dict[str, npt.NDArray[np.int32]]
    targets: npt.NDArray[Any] | None
    references: Sequence[Any]
    written: npt.NDArray[np.int32] | None = None

    @classmethod
    def joined(cls, ids: npt.NDArray[np.int64], chunks: Sequence[Encoded]) -> Sequences:
        windows = list(
            chain.from_iterable(
                chunk.windows or [1] * len(chunk.tokens["input_ids"]) for chunk in chunks
            )
        )
        lengths = [len(row) for chunk in chunks for row in chunk.tokens["input_ids"]]
        targets = [chunk.targets for chunk in chunks if chunk.targets is not None]
        written = [chunk.written for chunk in chunks if chunk.written is not None]
        return cls(
            ids=ids,
            first=_ends(windows),
            starts=_ends(lengths),
            tokens={
                name: _flat(chunk.tokens[name] for chunk in chunks) for name in chunks[0].tokens
            },
            targets=np.concatenate(targets) if targets else None,
            references=[one for chunk in chunks for one in chunk.references],
            written=np.array(list(chain(*written)), dtype=np.int32) if written else None,
        )

    @classmethod
    def behind(cls, parts: Sequence[Sequences]) -> Sequences:
        """The rows of these, one behind the other."""
        targets = [part.targets for part in parts if part.targets is not None]
        written = [part.written for part in parts if part.written is not None]
        return cls(
            ids=np.concatenate([part.ids for part in parts]),
            first=_ends(np.concatenate([np.diff(part.first) for part in parts])),
            starts=_ends(np.concatenate([np.diff(part.starts) for part in parts])),
            tokens={
                name: np.concatenate([part.tokens[name] for part in parts])
                for name in parts[0].tokens
            },
            targets=np.concatenate(targets) if targets else None,
            references=[one for part in parts for one in part.references],
            written=np.concatenate(written) if written else None,
        )

    @property
    def read_lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each row's sequences, those of all its windows together."""
        return np.diff(self.starts[self.first]).astype(np.int32)

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each row, with those that it is to write: what batches and packs are made by,
        and what is counted as trained."""
        read = self.read_lengths
        return read if self.written is None else read + self.written

    def counted(self, tokens: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Of what holds for a token or not: for how many of each sequence."""
        counts = np.zeros(len(self.starts) - 1, dtype=np.int64)
        filled = np.diff(self.starts) > 0
        counts[filled] = np.add.reduceat(tokens, self.starts[:-1][filled], dtype=np.int64)
        return counts

    def of_rows(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The sequences of these rows, in order."""
        return np.concatenate([np.arange(self.first[row], self.first[row + 1]) for row in rows])

    def padded(
        self, sequences: npt.NDArray[np.int64], fills: Mapping[str, int], *, left: bool = False
    ) -> dict[str, torch.Tensor]:
        """Tensors of shape (sequences, longest), int64: those named, and `attention_mask`.

        Padding is masked by length, never by token id: the padding token may well stand in a text,
        and where it is the end of text as well the true end is to be learnt.
        """
        lengths = np.diff(self.starts)[sequences]
        places = np.broadcast_to(np.arange(int(lengths.max())), (len(lengths), int(lengths.max())))
        if left:
            places = places - (places.shape[1] - lengths)[:, None]
        mask = (places >= 0) & (places < lengths[:, None])
        sources = (self.starts[sequences][:, None] + places)[mask]
        tensors = {"attention_mask": torch.from_numpy(mask.astype(np.int64))}
        for name, fill in fills.items():
            matrix = np.full(mask.shape, fill, dtype=np.int64)
            matrix[mask] = self.tokens[name][sources]
            tensors[name] = torch.from_numpy(matrix)
        return tensors


def read_chunks(
    path: Path, param: str, between_chunks: Callable[[], None]
) -> Iterator[tuple[npt.NDArray[np.int64], pa.Table]]:
    """An Arrow file's rows in chunks, with their numbers. `between_chunks` may raise.

    Raises BadData where there are none.
    """
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        if not len(table):
            raise BadData("The file has no rows.", param=param)
        for start in range(0, len(table), CHUNK_ROWS):
            between_chunks()
            chunk = table.slice(start, CHUNK_ROWS)
            yield np.array(chunk["id"], dtype=np.int64), chunk


def bad_rows(
    ids: Iterable[int],
    fault: str,
    param: str,
    hint: str = "Correct or remove these rows and upload the file again.",
) -> BadData:
    """An error that names the first rows at fault."""
    rows = [int(row) for row in ids]
    return BadData(
        f"{len(rows)} rows {fault}, the first at row {rows[0]}.",
        param=param,
        hint=hint,
        details=[{"row": row} for row in rows[:MAX_REPORTED_ROWS]],
    )


def _ends(lengths: list[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _flat(chunks: Iterable[list[list[int]]]) -> npt.NDArray[np.int32]:
    rows = chain.from_iterable(chunks)
    return np.fromiter(chain.from_iterable(rows), dtype=np.int32)
