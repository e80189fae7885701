"""Steps whose rows have nothing to learn: not one supervised item among them.

Such a step has no mean loss and no gradient. It changes nothing, has no point in the metrics, and
is told: rows like this are mostly not meant. What can be seen of them before the first step is
refused or told by the tasks' `read`; a crop of an image that shows no labelled pixel can not.
"""

from __future__ import annotations

from core.errors import BadData
from training.records import Records
from training.state import RunState


def take(state: RunState, most: int, records: Records) -> None:
    """Count the present step as one, and tell of the first. Raises BadData where the first `most`
    steps, which is an epoch, were all like this."""
    state.empty_steps += 1
    if state.empty_steps == state.step >= most:
        raise BadData(
            "The training file holds nothing to learn: no row has anything to be told.",
            param="training_file",
            hint="Correct it. What is to be told must be in the rows, and not be cut off.",
        )
    if state.empty_steps == 1:
        records.log(
            "warn",
            f"Step {state.step} changes nothing: its rows have nothing to learn. It has no point "
            "in the metrics. How many steps were like it is told at the end.",
            step=state.step,
        )


def tell(state: RunState, records: Records) -> None:
    """Say at the end how many there were."""
    if state.empty_steps:
        records.log(
            "warn",
            f"{state.empty_steps} of {state.step} steps had rows with nothing to learn, and "
            "changed nothing.",
        )
