"""What a worker uses of its machine, told with each sign of life: for operators' graphs."""

from __future__ import annotations

import logging
import math
import os
import subprocess
from contextlib import suppress
from functools import lru_cache

import psutil

from models.base import Json

SMI_SECONDS = 5.0
QUERY = "index,memory.used,memory.total,utilization.gpu"
MIB = 1024 * 1024

log = logging.getLogger(__name__)


def usage(device: str) -> Json:
    """Bytes of memory of this process and its trainers, what the machine has left, and its GPUs."""
    resident = 0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):
            resident += process.memory_info().rss
    return {
        "resident_bytes": resident,
        "available_bytes": psutil.virtual_memory().available,
        "gpus": [] if device == "cpu" else _gpus(),
    }


def _gpus() -> list[Json]:
    """As the driver's own command tells; none where it does not answer."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    which = ["-i", chosen] if chosen else []
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits", *which]
    try:
        told = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=SMI_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("GPU use is not known: %s", error)
        return []
    return parse(told.stdout)


def parse(told: str) -> list[Json]:
    """The lines of nvidia-smi, in which a GPU that cannot tell something says `[N/A]`. Others, such
    as warnings of its driver, are left out."""
    gpus = []
    for line in told.splitlines():
        fields = [_number(field) for field in line.split(",")]
        if len(fields) != len(QUERY.split(",")):
            _tell_once(line)
            continue
        index, used, total, busy = fields
        gpus.append(
            {
                "index": None if index is None else int(index),
                "used_bytes": None if used is None else int(used * MIB),
                "total_bytes": None if total is None else int(total * MIB),
                "utilization": None if busy is None else busy / 100,
            }
        )
    return gpus


@lru_cache
def _tell_once(line: str) -> None:
    """Not at each sign of life."""
    log.warning("a line of nvidia-smi is not understood: %s", line)


def _number(field: str) -> float | None:
    with suppress(ValueError):
        number = float(field)
        return number if math.isfinite(number) else None
    return None
