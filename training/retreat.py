"""Out of memory: the same work once more, in smaller micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from training import devices
from training.failures import OutOfMemory, is_out_of_memory
from training.state import RunState

T = TypeVar("T")


def retreating(
    work: Callable[[], T],
    state: RunState,
    *,
    divided: bool,
    forget: Callable[[], None],
    warn: Callable[[str], None],
) -> T:
    """Do the work, with ever smaller micro-batches while the device runs out of memory.

    The batch of an optimizer step stays what it is. `forget` drops what a try left behind. Where
    the weights are `divided`, ranks are waiting for each other in the middle, and none can begin
    again. Raises OutOfMemory then, and when one row at a time is too much.
    """
    while True:
        size = state.micro_batch_size
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if size == 1 or divided:
                raise OutOfMemory(
                    "The device's memory is too small for "
                    f"{'one row' if size == 1 else f'{size} rows'} at a time.",
                    hint="Choose a smaller `max_length` or a smaller model.",
                ) from error
        # Out of the except block: the exception's traceback holds the tensors.
        state.micro_batch_size = -(-size // 2)
        if (tokens := state.micro_batch_tokens) is not None:
            state.micro_batch_tokens = -(-tokens // 2)
        forget()
        devices.release_memory()
        warn(f"Out of memory with {size} rows at a time: going on with {state.micro_batch_size}.")
