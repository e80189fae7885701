"""How a run fails: one class for each stable code, and what a foreign exception amounts to.

The codes are those of `job.error.code`. Whether a failure is the user's or the machine's is the
supervisor's to judge, by code.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable

from core.errors import LuthierError

_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class JobUnreadable(LuthierError):
    """The supervisor broke the contract of the job folder: our own fault, not the user's."""

    code = "internal"


class ModelUnavailable(LuthierError):
    """The base model is missing, unsafe to load, or not of a kind that the task can train."""

    code, status, kind = "model_unavailable", 400, "invalid_request_error"


class NonFiniteLoss(LuthierError):
    """A loss or a gradient was NaN or infinite. The weights were not touched by it."""

    code, status, kind = "non_finite_loss", 400, "invalid_request_error"

    @classmethod
    def at(cls, what: str, step: int, rows: Iterable[int], param: str) -> NonFiniteLoss:
        """`what` of optimizer step `step`, counted from 1; `rows` as numbered in the file."""
        return cls(
            f"The {what} of step {step} is not a finite number.",
            hint="Lower the learning rate, or look at the rows that this error lists.",
            param=param,
            details=[{"step": step, "row": int(row)} for row in rows],
        )


class OutOfMemory(LuthierError):
    """Not even one row at a time fits."""

    code, status, kind = "out_of_memory", 400, "invalid_request_error"


class DiskFull(LuthierError):
    """A checkpoint or the output could not be written. What was complete before still is."""

    code, status, kind = "disk_full", 507, "server_error"


class CheckpointCorrupt(LuthierError):
    """A checkpoint's files are not those of its manifest."""

    code = "internal"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device's memory, or on a CPU the process's, ran out.

    torch's class is known by name, so that this works where torch itself could not be imported.
    Its CPU allocator raises a plain RuntimeError, known by its text alone.
    """
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


def disk_error(error: BaseException) -> BaseException | None:
    """What says that a disk took no more (no room, no permission to grow, read-only), if it did.

    safetensors raises an error of its own with the errno in its text. torch raises one that says
    nothing, while the system's is being handled.
    """
    link: BaseException | None = error
    while link is not None:
        found = _OS_ERROR.search(str(link))
        number = link.errno if isinstance(link, OSError) else int(found[1]) if found else None
        if number in _DISK_ERRNOS:
            return link
        link = link.__cause__ or link.__context__
    return None


def classify(error: Exception) -> LuthierError:
    """The error to report for anything that ended a run."""
    if isinstance(error, LuthierError):
        return error
    if is_out_of_memory(error):
        return OutOfMemory(
            f"The device ran out of memory: {_first_line(error)}",
            hint="Choose a smaller `max_length` or `micro_batch_size`, or a smaller model.",
        )
    if (cause := disk_error(error)) is not None:
        return DiskFull(
            f"The worker's disk took no more: {_first_line(cause)}",
            hint="Free space on the worker; the job goes on from its last checkpoint.",
        )
    return LuthierError(f"The trainer failed: {type(error).__name__}: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")
