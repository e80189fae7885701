"""Which published checkpoints a job keeps: the newest few, the best, and every K-th step.

Cleaning removes the bytes of the others. At least the newest one stays, so that there is always
one to go on from.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from models import checkpoints
from models.checkpoints import Checkpoint


def apply(session: Session, job_id: str, *, keep_last: int, keep_every: int | None) -> list[int]:
    """Discard what need not be kept; its steps. The caller holds the job's lease."""
    known = checkpoints.newest_first(session, job_id)
    kept = chosen(known, keep_last=keep_last, keep_every=keep_every)
    dropped = [checkpoint for checkpoint in known if checkpoint.id not in kept]
    for checkpoint in dropped:
        checkpoints.discard(session, checkpoint.id)
    return [checkpoint.step for checkpoint in dropped]


def chosen(newest_first: list[Checkpoint], *, keep_last: int, keep_every: int | None) -> set[str]:
    """The ids of those to keep."""
    kept = {checkpoint.id for checkpoint in newest_first[: max(1, keep_last)]}
    # `best` says that a checkpoint was the best when it was made, so of several the newest is.
    kept |= {checkpoint.id for checkpoint in [c for c in newest_first if c.best][:1]}
    if keep_every:
        kept |= {checkpoint.id for checkpoint in newest_first if checkpoint.step % keep_every == 0}
    return kept
