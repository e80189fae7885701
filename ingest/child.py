"""`prepare` in a child process whose memory, time and output are limited.

Users' files meet parsers written in C here. Whatever one of them does to a parser happens to the
child: it has no credentials, no more memory than allowed, and the parent tells its end as an
error of the file.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import ingest
from core import child
from core.errors import BadData, InvalidRequest, LuthierError, Unavailable, Unprocessable
from core.parent import die_with_parent
from ingest.clean import Choices
from ingest.cleaned import cleaned
from ingest.describe import describe
from ingest.limits import Limits
from ingest.prepare import Prepared, Role, prepare

STDERR_SHOWN = 2000
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


@dataclass(frozen=True)
class Allowance:
    """What checking one file may take."""

    memory_bytes: int = 4 * 1024**3
    """Of address space, libraries included (about 600 MB)."""
    cpu_seconds: int = 3600
    wall_seconds: float = 7200.0
    output_bytes: int = 256 * 1024**3


class Request(msgspec.Struct):
    """What the child reads from its standard input."""

    source: str
    task: str | None
    out: str
    role: Role
    allowance: Allowance
    limits: Limits
    column_mapping: dict[str, str] | None = None
    labels: list[str] | None = None
    name: str | None = None
    skip_invalid: float = 0.0
    training: str | None = None
    shape: str | None = None
    cleaning: Choices | None = None
    valid_out: str | None = None
    skipped_out: str | None = None
    model: str | None = None
    max_length: int | None = None


class Fault(msgspec.Struct):
    """An error of the file or the request, as the child met it."""

    kind: str
    message: str
    code: str
    param: str | None
    hint: str | None
    details: list[dict[str, Any]]


class Reply(msgspec.Struct):
    """What became of a request: one of these. The child writes all but `crashed`."""

    prepared: Prepared | None = None
    fault: Fault | None = None
    exceeded: str | None = None
    crashed: str | None = None
    unavailable: str | None = None


def prepare_limited(
    source: Path,
    task: str | None,
    *,
    column_mapping: dict[str, str] | None = None,
    out: Path,
    role: Role,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    limits: Limits | None = None,
    skip_invalid: float = 0.0,
    training: Path | None = None,
    shape: str | None = None,
    cleaning: Choices | None = None,
    valid_out: Path | None = None,
    skipped_out: Path | None = None,
    model: Path | None = None,
    max_length: int | None = None,
    allowance: Allowance | None = None,
    check: Callable[[], None] | None = None,
) -> Prepared:
    """`prepare`, with its arguments and errors, in a limited child; then `clean`, if asked for, and
    `describe`.

    Rows that cleaning splits off are written to `valid_out`. `model` is the folder of the model
    that is to be trained, of which the JSON files are read; `max_length` is the most tokens of a
    row. `check` is asked now and again whether to go on, and ends the child by raising.

    Raises BadData with the code `resource_limit` for a file that needs more than allowed, and
    `parser_crash` for one that brings the child down; Unavailable where the machine is at fault.
    """
    allowance = allowance or Allowance()
    request = Request(
        source=str(source),
        task=task,
        out=str(out),
        role=role,
        allowance=allowance,
        limits=limits or Limits(),
        column_mapping=column_mapping,
        labels=None if labels is None else list(labels),
        name=name or source.name,
        skip_invalid=skip_invalid,
        training=None if training is None else str(training),
        shape=shape,
        cleaning=cleaning,
        valid_out=None if valid_out is None else str(valid_out),
        skipped_out=None if skipped_out is None else str(skipped_out),
        model=None if model is None else str(model),
        max_length=max_length,
    )
    reply = _run(request, check)
    if reply.prepared is not None:
        return reply.prepared
    if reply.fault is not None:
        raise _raised(reply.fault)
    if reply.unavailable is not None:
        raise Unavailable(f"The data could not be prepared: {reply.unavailable}.")
    raise BadData(
        f"{request.name}: checking the file {reply.exceeded or reply.crashed}.",
        code="resource_limit" if reply.exceeded else "parser_crash",
        param=f"{role}_file",
        hint="Split it, or write its rows shorter."
        if reply.exceeded
        else "Write the file anew, in another format if you can.",
    )


def _run(request: Request, check: Callable[[], None] | None) -> Reply:
    try:
        ended = child.ask(
            [sys.executable, "-m", "ingest.child", str(os.getpid())],
            msgspec.json.encode(request),
            env=_environment(),
            seconds=request.allowance.wall_seconds,
            check=check,
        )
    except subprocess.TimeoutExpired:
        return Reply(exceeded=f"took longer than {request.allowance.wall_seconds:,.0f} seconds")
    finally:
        _sweep(Path(request.out))
    if ended.returncode == 0:
        return msgspec.json.decode(ended.stdout, type=Reply)
    if ended.returncode == -signal.SIGXCPU:
        return Reply(
            exceeded=f"took more than {request.allowance.cpu_seconds:,} s of processor time"
        )
    if ended.returncode < 0:
        # A C++ library that gets no memory may abort instead of raising.
        return Reply(crashed=f"ended with {signal.Signals(-ended.returncode).name}")
    told = ended.stderr.decode("utf-8", "replace")[-STDERR_SHOWN:]
    raise RuntimeError(f"the child that checks data ended with {ended.returncode}: {told}")


def _sweep(out: Path) -> None:
    """Take away the scratch folder of a child that could not do it itself."""
    for left in out.parent.glob(f".{out.name}-*"):
        shutil.rmtree(left)


def _environment() -> dict[str, str]:
    """Nothing of the parent's, so no credentials. One thread, and memory given back at once."""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": str(Path(ingest.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _raised(fault: Fault) -> LuthierError:
    kinds = (BadData, InvalidRequest, Unprocessable)
    kind = next(kind for kind in kinds if kind.__name__ == fault.kind)
    return kind(
        fault.message,
        code=fault.code,
        param=fault.param,
        hint=fault.hint,
        details=fault.details,
    )


def _limit(allowance: Allowance) -> None:
    # At the soft limit comes SIGXCPU, which tells its reason; at the hard one SIGKILL.
    cpu = allowance.cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
    for which, most in (
        (resource.RLIMIT_AS, allowance.memory_bytes),
        (resource.RLIMIT_FSIZE, allowance.output_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (most, most))


def _answer(request: Request) -> Reply:
    try:
        prepared = prepare(
            Path(request.source),
            request.task,
            column_mapping=request.column_mapping,
            out=Path(request.out),
            role=request.role,
            labels=request.labels,
            name=request.name,
            limits=request.limits,
            skip_invalid=request.skip_invalid,
            training=None if request.training is None else Path(request.training),
            shape=request.shape,
            skipped_out=None if request.skipped_out is None else Path(request.skipped_out),
        )
        if request.cleaning is not None:
            valid_out = None if request.valid_out is None else Path(request.valid_out)
            prepared = cleaned(prepared, request.cleaning, Path(request.out), valid_out)
        model = None if request.model is None else Path(request.model)
        prepared = describe(prepared, Path(request.out), request.role, model, request.max_length)
        return Reply(prepared=prepared)
    except LuthierError as error:
        return Reply(
            fault=Fault(
                type(error).__name__,
                error.message,
                error.error_code,
                error.param,
                error.hint,
                error.details,
            )
        )
    except MemoryError:
        needed = request.allowance.memory_bytes // 1024**2
        return Reply(exceeded=f"needs more than {needed:,} MiB of memory")
    except OSError as error:
        if error.errno == errno.EFBIG:
            return Reply(exceeded=f"gives more than {request.allowance.output_bytes:,} bytes")
        if error.errno in _OUT_OF_SPACE:
            return Reply(unavailable=os.strerror(error.errno))
        raise


def main() -> None:
    # The child must not outlive its parent, which alone would take its result.
    die_with_parent(int(sys.argv[1]))
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    _limit(request.allowance)
    sys.stdout.buffer.write(msgspec.json.encode(_answer(request)))


if __name__ == "__main__":
    main()
