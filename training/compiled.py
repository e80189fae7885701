"""Layers through `torch.compile`, by choice: elementwise work of a layer in few kernels.

Layers of one class are compiled once and for every length, as one function that all of them share:
a model as a whole would be compiled again for each batch's layout, and for minutes. What hangs on
the batch stays outside, and so do the hooks of `unpadding.py`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from transformers import AttentionInterface

from core.errors import InvalidRequest
from training import attention
from training.layers import stacks

SHAPES = 64
"""How often one function may be compiled: training, evaluating, and layers of several widths."""


def install(model: nn.Module) -> None:
    """Compile the layers in place, at their first call.

    Raises InvalidRequest where the model has no stack of layers, or nothing can be compiled here.
    """
    layers = [layer for _, stack in stacks(model) for layer in stack]
    if not layers:
        raise _impossible("this model has no stack of layers to compile")
    # Compiling beside this process would leave processes that do not end with it.
    torch._inductor.config.compile_threads = 1
    torch._dynamo.config.recompile_limit = SHAPES
    _try(next(model.parameters()).device)
    # Each batch has a layout of its own, which no kernel can be made for ahead.
    AttentionInterface.register(attention.NAME, torch.compiler.disable(attention.attend))
    functions: dict[type[nn.Module], Any] = {}
    for layer in layers:
        kind = type(layer)
        if kind not in functions:
            functions[kind] = torch.compile(kind.forward, dynamic=True)
        # A method, which a copy of the model binds to its own layer.
        layer.forward = MethodType(functions[kind], layer)


def set_aside() -> AbstractContextManager[Any]:
    """Within it layers run as they were written: for a few rows, or texts that grow token by token,
    making kernels would take far longer than it saves."""
    aside: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return aside


def _try(device: torch.device) -> None:
    """Whether a compiler and the headers are there is known once something was compiled. In the
    middle of a step it would look like a fault of ours, and the job would be tried again."""
    try:
        torch.compile(_one_more)(torch.ones(2, device=device))
    except TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        raise _impossible(
            f"the worker's compiler fails ({reason}); it needs g++ and Python's headers"
        ) from error


def _one_more(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def _impossible(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"`torch_compile` cannot be done: {reason}.",
        hint="Leave it out.",
        param="torch_compile",
    )
