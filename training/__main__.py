"""`python -m training`: a trainer that has imported everything and waits to be given a job.

The contract with the supervisor is docs/job-folder.md. This process must never outlive it, and
nothing but the supervisor ends it: not a Ctrl-C nor a SIGTERM meant for the whole service, after
which the supervisor still wants its checkpoint.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TRANSFORMERS_VERBOSITY": "warning",
    # cuBLAS is deterministic only with a workspace of fixed size.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
log = logging.getLogger("training")


def main() -> int:
    """Run one job; the process's exit status."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    os.environ.update(ENVIRONMENT)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level="INFO")

    from training.control import Control
    from training.peers import RANK, RECORD_FD, FailureAlone, Peers
    from training.records import Records

    rank = int(os.environ.get(RANK, "0"))
    kind_of_records = FailureAlone if rank else Records
    records, control = kind_of_records(int(os.environ[RECORD_FD])), Control()
    control.listen(sys.stdin.fileno())
    peers: Peers | None = None
    try:
        from transformers.utils import logging as transformers_logging

        from training import devices
        from training.job import read_job
        from training.loop import train
        from training.parallel import joined

        transformers_logging.disable_progress_bar()
        kind = devices.available()
        records.write(
            "ready",
            pid=os.getpid(),
            versions=devices.versions(),
            device=kind,
            device_name=devices.name(kind),
            memory_bytes=devices.memory(kind),
            gpus=devices.gpus(),
        )
        job = read_job(control.wait_for_start())
        meeting = job.folder / "ranks"
        if rank == 0 and job.ranks > 1:
            meeting.unlink(missing_ok=True)
            peers = Peers(job.folder, job.ranks, records)
        with joined(rank, job.ranks, meeting, job.device, job.sharding == "full") as ranks:
            train(job, records, control, ranks)
        if peers is not None:
            peers.close()
    except Exception as error:
        log.exception("The run failed.")
        if peers is not None:
            peers.give_way()
        from training.failures import classify

        failure = classify(error)
        details = {"details": failure.details} if failure.details else {}
        records.write("failed", **failure.as_job_error(), **details)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
