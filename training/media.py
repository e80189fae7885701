"""Rows of files that hold media: a file stays mapped; only what is learnt of it is encoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.errors import BadData
from training.sequences import CHUNK_ROWS

Encode = Callable[[pa.Table, npt.NDArray[np.int64]], list[Any]]
"""The targets of a chunk of rows, which have these numbers."""


def read(
    path: Path, param: str, between_chunks: Callable[[], None], encode: Encode
) -> tuple[pa.Table, npt.NDArray[np.int64], list[Any]]:
    """The rows of an Arrow file, their numbers and their targets. Raises BadData."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    if not len(table):
        raise BadData("The file has no rows.", param=param)
    ids = np.array(table["id"], dtype=np.int64)
    targets: list[Any] = []
    for start in range(0, len(table), CHUNK_ROWS):
        between_chunks()
        part = slice(start, start + CHUNK_ROWS)
        targets.extend(encode(table.slice(start, CHUNK_ROWS), ids[part]))
    return table, ids, targets
