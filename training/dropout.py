"""Dropout from 16 random bits an element: on a CPU drawing them is most of dropout's cost.

torch draws 64 bits for each element one after the other. Four elements to a 64-bit number, drawn by
NumPy's fastest generator, take a twelfth of the time; its seed is drawn by torch's. The chance is
rounded to a multiple of 1/65536.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from core.errors import InvalidRequest

LEVELS = 1 << 16
PER_DRAW = 4
INT64 = np.iinfo(np.int64)


class _Drop(torch.autograd.Function):
    """Keeps the factors, 0 or 1 / (1 - p), of the elements' own dtype."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, p: float) -> torch.Tensor:
        count = x.numel()
        limit = round(p * LEVELS)
        seed = int(torch.empty((), dtype=torch.int64).random_())
        draws = np.random.Generator(np.random.SFC64(seed)).integers(
            INT64.min, INT64.max, -(-count // PER_DRAW), dtype=np.int64, endpoint=True
        )
        # All 64 bits are random, so each quarter of them is.
        bits = torch.from_numpy(draws).view(torch.int16)
        kept = bits[:count].view(x.shape) >= limit - LEVELS // 2
        factors = kept.to(x.dtype).mul_(LEVELS / (LEVELS - limit))
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (factors,) = ctx.saved_tensors
        return grads[0] * factors, None


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """x on a CPU with a share p of its elements set to 0 and the others scaled up, by torch's
    generator."""
    if not 0 < p < 1:
        return x * (1 - p)
    dropped: torch.Tensor = _Drop.apply(x, p)
    return dropped


class Dropout(nn.Dropout):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p or input.is_cuda:
            return super().forward(input)
        return dropout(input, self.p)


def install(model: nn.Module, p: float | None = None) -> None:
    """Put this dropout in the place of torch's throughout a model, with `p` if there is one.

    Raises InvalidRequest for a model that has none to give `p` to.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p).train(child.training))
    if p is not None and not override(model, p):
        raise InvalidRequest(
            "This model has no dropout.", hint="Leave `dropout` out.", param="dropout"
        )


def override(model: nn.Module, p: float) -> bool:
    """Make every dropout of the model's own this one, and say whether there is any. Adapters have
    theirs by `lora`."""
    found = False
    for name, module in model.named_modules():
        if "lora_" in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p, found = p, True
        for attribute, value in vars(module).items():
            # Attention's, which some classes keep as a number: 0 may be an integer.
            if "dropout" in attribute and type(value) in (int, float):
                setattr(module, attribute, p)
                found = True
    return found
