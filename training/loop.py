"""The training loop. `train` reads from top to bottom; what its lines do stands in run.py."""

from __future__ import annotations

from training.control import Control, StopRequested
from training.job import Job
from training.parallel import ALONE, Ranks
from training.records import Records
from training.run import Run


def train(job: Job, records: Records, control: Control, ranks: Ranks = ALONE) -> None:
    """Run a job until `done`, or until `stopped` if the supervisor asks. Failures are raised.

    An evaluation and a checkpoint belong to the step before them and come before the next. So a
    run that resumes enters the loop where it left it, and does first what was still due.
    """
    run = Run(job, records, control, ranks)
    try:
        run.read_data()
        while True:
            if (rows := run.evaluation_due()) is not None:
                run.evaluate(rows)
            if reason := run.checkpoint_due():
                run.save(reason)
            if run.finished():
                break
            run.check()
            run.step()
    except StopRequested as stop:
        run.stop(stop.mode)
    except Exception:
        run.sealing.settle(wait=True)  # a failure does not cost the checkpoint before it
        raise
    else:
        run.export()
