"""Several ranks, each a process with a device of its own and the whole model: what they add up.

Every rank runs the same loop over its share of each step's rows. They meet in few places, all of
them here, and always in the same order: the sums of a step, its gradient, a stop, the results of an
evaluation. `Ranks()` is a run of one process, for which all of this is nothing.

torch's DistributedDataParallel is not used: it wants to be the module that is called, and a task's
loss calls parts of a model. So the gradient is added up after the last micro-batch. That is what
lets ranks agree on a retreat from lack of memory: until then none waits for another.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from training.control import Control, StopMode, StopRequested
from training.failures import is_out_of_memory

T = TypeVar("T")
STOPS: tuple[StopMode | None, ...] = (None, "save", "now")
BUCKET = 1 << 24
"""Elements of the gradient that are sent at once: 64 MiB."""
SUMS = 16
"""Numbers of a step that ranks add up, at most: a share without rows does not know how many."""
PATIENCE = timedelta(days=1)
"""For a rank that is behind. One that has died ends the others at once (`peers.py`)."""
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""All ranks are on one machine, and nobody else is to reach them."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of its run."""

    rank: int = 0
    count: int = 1
    sharded: bool = False
    """Whether each holds only its part of the weights (`sharding.py`)."""

    @property
    def first(self) -> bool:
        """Whether this one writes records, checkpoints and the output, and hears the supervisor."""
        return self.rank == 0

    def check(self, control: Control) -> None:
        """Raise StopRequested if a stop was asked for: on all ranks at the same step, by what the
        first one has heard."""
        mode: StopMode | None = None
        try:
            control.check()
        except StopRequested as stop:
            mode = stop.mode
        mode = STOPS[self._first_says(STOPS.index(mode))]
        if mode is not None:
            raise StopRequested(mode)

    def together(self, work: Callable[[], T]) -> T:
        """Do this rank's work, in which it waits for no other. Raises MemoryError on every rank if
        one of them ran out of memory, so that all retreat. Any other error is the rank's own, and
        ends the run."""
        if self.count == 1 or self.sharded:
            return work()
        done: list[T] = []
        try:
            done.append(work())
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Out of the except block: the exception's traceback holds the tensors.
        if any(self._all(0 if done else 1)):
            raise MemoryError("A rank ran out of memory.")
        return done[0]

    def total(self, values: Sequence[float]) -> list[float]:
        """These numbers summed over the ranks; at most `SUMS`, in fp64."""
        if self.count == 1:
            return list(values)
        sums = torch.zeros(SUMS, dtype=torch.float64)
        sums[: len(values)] = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums)
        return sums[: len(values)].tolist()

    def _first_says(self, number: int) -> int:
        """The first rank's number."""
        if self.count == 1:
            return number
        told = torch.tensor([number])
        distributed.broadcast(told, 0)
        return int(told)

    def told(self, value: T) -> T:
        """The first rank's value. Pickled: it comes from our own process."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, 0)
        return values[0]

    def gathered(self, value: T, device: torch.device | str = "cpu") -> list[T]:
        """The values of all ranks in order, their tensors on this device; on others than the first
        rank nothing."""
        if self.count == 1:
            return [value]
        buffer = io.BytesIO()
        torch.save(value, buffer)
        all_of_them: list[Any] = [None] * self.count
        distributed.gather_object(buffer.getvalue(), all_of_them if self.first else None)
        return [
            # From our own processes.
            torch.load(io.BytesIO(data), map_location=device, weights_only=False)
            for data in all_of_them
            if data is not None
        ]

    def sum_gradients(self, model: nn.Module) -> None:
        """Put into every rank's gradients their sum. Sharded ones are summed in the backward pass.

        A parameter that no rank's rows reached keeps none, as with one process.
        """
        if self.count == 1 or self.sharded:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        reached = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
        distributed.all_reduce(reached, distributed.ReduceOp.MAX)
        gradients: list[torch.Tensor] = []
        for parameter, is_reached in zip(parameters, reached.tolist(), strict=True):
            if is_reached:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            distributed.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def same_as_first(self, tensors: Iterator[torch.Tensor]) -> None:
        """Give all ranks the first one's values of whole tensors."""
        if self.count == 1 or self.sharded:
            return
        for tensor in tensors:
            distributed.broadcast(tensor.detach(), 0)

    def _all(self, number: int) -> list[int]:
        numbers = torch.zeros(self.count, dtype=torch.int64)
        numbers[self.rank] = number
        distributed.all_reduce(numbers)
        return numbers.tolist()


ALONE = Ranks()


@contextmanager
def joined(rank: int, count: int, meeting: Path, device: str, sharded: bool) -> Iterator[Ranks]:
    """Meet the other ranks by a file that is not there yet; leave them at the end.

    A file and the loopback interface, since torch's stores of keys listen on every interface.
    """
    if count == 1:
        yield ALONE
        return
    os.environ.update(LOOPBACK)
    if device == "cuda":
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=count,
        timeout=PATIENCE,
    )
    yield Ranks(rank, count, sharded)
    # Neither after an error, nor with a barrier: others may be in the middle of something still.
    distributed.destroy_process_group()


def _buckets(tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Runs of one dtype with at most `BUCKET` elements, or one tensor that has more by itself."""
    bucket: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size + tensor.numel() > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket
