"""Weights, gradients and optimizer state divided among ranks: FSDP2 (`fully_shard`).

Each layer is gathered when it is needed and let go after it. Whatever is written is whole: a
checkpoint is the same folder whether it was trained divided or not, and either goes on from it.
Matters of the order: every rank goes through the layers equally often, or one waits for ever.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from core.errors import InvalidRequest
from training.layers import stacks
from training.parallel import Ranks
from training.tasks.base import Task
from training.tasks.text_generation import TextGeneration

TASKS = (
    "text-generation", "preference", "fill-mask",
    "text-classification", "token-classification", "question-answering",
)  # fmt: skip
"""Whose losses and metrics go through the model as a whole, and equally often on every rank."""


def require(task: Task[Any], ranks: Ranks) -> None:
    """Raise InvalidRequest for what several ranks cannot do."""
    spec, what = task.spec, ""
    if ranks.count > 1 and task.joins_rows:
        what = "a loss that sets the rows of a step against each other"
    elif ranks.sharded and spec.task not in TASKS:
        what = f"the task {spec.task!r} with `resources.sharding` 'full'"
    elif ranks.sharded and spec.ema_decay is not None:
        what = "`ema_decay` with `resources.sharding` 'full'"
    elif ranks.sharded and spec.lora is not None and spec.lora.quantization is not None:
        what = "`quantization` with `resources.sharding` 'full'"
    elif ranks.sharded and spec.freeze is not None and spec.freeze.gradual is not None:
        what = "`freeze.gradual` with `resources.sharding` 'full'"
    if what:
        raise InvalidRequest(
            f"{ranks.count} processes cannot share {what}.",
            hint="Ask for one GPU in `resources`, or leave `sharding` out.",
            param="resources",
            code="unsupported_resources",
        )


class Sharded:
    """A model that is divided from now on, and the hollow copy of it that its weights are written
    from."""

    def __init__(self, task: Task[Any], model: nn.Module, device: torch.device, count: int) -> None:
        """Divide it in place. The weights may lie on the CPU: no rank's device has to hold them
        all."""
        if isinstance(task, TextGeneration):
            # The head's weights are there within the model's forward alone.
            task.plain_head = False
        without_weights: dict[int, Any] = {
            id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
            for p in model.parameters()
        }
        self._model = model
        self._hollow = copy.deepcopy(model, without_weights)
        mesh = init_device_mesh(device.type, (count,))
        for _, layers in stacks(model):
            for layer in layers:
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                # Sums, as everywhere here; it would take means over the ranks.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)

    @contextmanager
    def whole(self, keep: bool) -> Iterator[nn.Module]:
        """Within it, the model with all weights on the CPU, for a rank that keeps them. All ranks
        have to ask."""
        for ours, hollow in zip(self._model.parameters(), self._hollow.parameters(), strict=True):
            full = gathered(ours.detach(), keep)
            if keep:
                filled = nn.Parameter(full, requires_grad=ours.requires_grad)
                # In place of the tensor itself, for tied weights are one.
                torch.utils.swap_tensors(hollow, filled)
        for buffer, copied in zip(self._model.buffers(), self._hollow.buffers(), strict=True):
            copied.copy_(buffer)
        yield self._hollow
        for hollow in self._hollow.parameters():
            empty = nn.Parameter(torch.empty_like(hollow, device="meta"), hollow.requires_grad)
            torch.utils.swap_tensors(hollow, empty)


def gathered(tree: Any, keep: bool) -> Any:
    """Any containers with their divided tensors whole and on the CPU, one after the other; for a
    rank that does not keep them, empty."""

    def one(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        full = value.full_tensor()
        return full.cpu() if keep else full.new_empty(0)

    return tree_map(one, tree)


def divided(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's whole state, of which each divided parameter gets this rank's part."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def part(value: Any, parameter: torch.Tensor) -> Any:
        if (
            not isinstance(parameter, DTensor)
            or not isinstance(value, torch.Tensor)
            or value.shape != parameter.shape
        ):
            return value
        mesh = parameter.device_mesh
        return distribute_tensor(value.to(mesh.device_type), mesh, parameter.placements)

    state = {
        place: {name: part(value, parameters[place]) for name, value in of_one.items()}
        for place, of_one in saved["state"].items()
    }
    return {**saved, "state": state}
