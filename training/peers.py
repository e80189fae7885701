"""The other ranks of a run: processes that the first rank starts and answers for.

To its peers the first rank is what the supervisor is to it: `python -m training` with a control
pipe in and a record pipe out, in the same process group, so that whoever kills that ends them all.
A peer tells nothing but its failure, which the first rank passes on. One that ends before its time
takes the first rank along; one whose control pipe closes ends itself. So a run has all of its ranks
or none, and the supervisor sees one process, as ever.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from training.records import Records

RANK, RECORD_FD = "LUTHIER_RANK", "LUTHIER_RECORD_FD"
SETTLING_SECONDS = 1.0
"""Within which the failures that one has brought about show."""
EXIT_SECONDS = 10.0


class FailureAlone(Records):
    """What a peer writes to: the first rank tells all the rest."""

    def write(self, type: str, **members: Any) -> None:
        if type == "failed":
            super().write(type, **members)


class Peers:
    """Ranks 1 and above, from their start to the end of the run."""

    def __init__(self, folder: Path, count: int, records: Records) -> None:
        self._records = records
        self._ends: list[tuple[int, dict[str, Any] | None]] = []
        """Ranks that failed, with what they told, and those that ended badly, in order."""
        self._over = False
        self._processes = [self._start(rank, folder) for rank in range(1, count)]

    def give_way(self) -> None:
        """After a failure of this rank: if a peer's lies behind it, that is what is told, and this
        does not return. A peer tells of its failure before it lets its connections go."""
        deadline = time.monotonic() + SETTLING_SECONDS
        while time.monotonic() < deadline:
            if self._ends or any(process.poll() for process in self._processes):
                threading.Event().wait()
            time.sleep(0.02)

    def close(self) -> None:
        """Let them end by themselves after the run, and end those that do not."""
        self._over = True
        for process in self._processes:
            try:
                process.wait(EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, rank: int, folder: Path) -> subprocess.Popen[bytes]:
        read_end, write_end = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "training"],
                stdin=subprocess.PIPE,
                pass_fds=(write_end,),
                env=os.environ | {RECORD_FD: str(write_end), RANK: str(rank)},
            )
        finally:
            os.close(write_end)
        threading.Thread(
            target=self._watch, args=(rank, process, read_end), name=f"rank {rank}", daemon=True
        ).start()
        assert process.stdin is not None
        process.stdin.write(json.dumps({"cmd": "start", "folder": str(folder)}).encode() + b"\n")
        process.stdin.flush()
        return process

    def _watch(self, rank: int, process: subprocess.Popen[bytes], records: int) -> None:
        """Wait for a peer's failure or end. After a bad one this process tells of it and ends."""
        with os.fdopen(records, "rb") as pipe:
            for line in pipe:
                if line.endswith(b"\n"):
                    self._end(rank, json.loads(line))
        status = process.wait()
        if status != 0 and not self._over and rank not in dict(self._ends):
            self._end(rank, None)
            print(f"Rank {rank} ended with status {status} and no result.", file=sys.stderr)

    def _end(self, rank: int, failure: dict[str, Any] | None) -> None:
        """A peer failed, or without a failure crashed. Only the first call does anything more."""
        self._ends.append((rank, failure))
        if len(self._ends) > 1:
            return
        threading.Thread(target=self._tell, name="end of the ranks", daemon=True).start()

    def _tell(self) -> None:
        # Others that waited for this one fail of that: the cause may come after its effect.
        time.sleep(SETTLING_SECONDS)
        told = {rank: failure for rank, failure in self._ends if failure}
        causes = [failure for failure in told.values() if failure["code"] != "internal"]
        crashed = any(rank not in told for rank, _ in self._ends)
        if causes or not crashed:
            failure = (causes or list(told.values()))[0]
            self._records.write(**{k: v for k, v in failure.items() if k != "time"})
        sys.stderr.flush()
        os._exit(1)
