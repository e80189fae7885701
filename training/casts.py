"""Inputs in 16 bits, made once for all layers that read them.

Autocast turns a layer's input into 16 bits for that layer alone. What several read, such as those
of queries, keys and values, is turned as often, and in the backward pass as many gradients are
turned back and added up in fp32.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Inputs:
    """The input that was turned last, for the next layer that reads it."""

    def __init__(self) -> None:
        self._given: tuple[torch.Tensor, int] | None = None
        self._turned = torch.empty(0)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        """x in the dtype that products are computed in here."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        # A compiler sees by itself what is computed twice.
        if x.dtype == dtype or torch.compiler.is_compiling():
            return x.to(dtype)
        version = 0 if x.is_inference() else x._version
        if self._given is None or self._given[0] is not x or self._given[1] != version:
            self._given, self._turned = (x, version), x.to(dtype)
        return self._turned


def install(model: nn.Module) -> None:
    """Have all linear layers share their inputs, in place, from now on."""
    inputs = Inputs()

    def forward(layer: Any, input: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs.turned(input), layer.weight, layer.bias)

    for module in model.modules():
        if type(module) is nn.Linear and "forward" not in vars(module):
            module.forward = MethodType(forward, module)  # type: ignore[method-assign]
