"""Behind its last attention a model works on those tokens alone that somebody asks for.

Only attention mixes tokens. A head that tells a text's class reads its first token, one that fills
masks the masked ones; what the last layer makes of the others behind its attention is for nobody.
That is two thirds of a layer's matrices: of a model with six layers a ninth of the work.

Where that part begins, and what a head reads, is not looked up but tried, when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from training.mode import evaluating
from training.packed import PackedStack

STACK = "packed_stack"
"""The body's attribute that holds what packs it, where its last layer has such a part."""
TOLERANCE = 1e-4
"""Of what trials may differ by, relative to the largest: the order of sums. Two sequences that see
each other differ by a hundred times as much."""
MISFITS = (ValueError, TypeError, RuntimeError, IndexError, KeyError, AttributeError)
"""What comes of a model that is called in a way it was not made for."""


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(
        one, other, atol=TOLERANCE * float(other.abs().max()), rtol=0
    )


def install(model: Any, stack: PackedStack, layer: nn.Module, told: Mapping[str, Any]) -> None:
    """Find the part of the packed model's last `layer`, if it has one. The trial is made with a
    batch, `told`, of texts of several lengths."""
    body, mask = model.base_model, told["attention_mask"].bool()
    wanted = mask & (torch.arange(mask.numel(), device=mask.device).view(mask.shape) % 3 == 0)
    with evaluating(model), torch.no_grad():
        whole = body(**told)[0][wanted]
        for part in range(len(list(layer.children())) - 1):
            handle = stack.narrow(layer, part)
            stack.wanted = wanted
            try:
                states = body(**told)[0][wanted]
            except MISFITS:
                states = torch.empty(0)
            stack.wanted = None
            if stack.narrowed and alike(states, whole):
                setattr(body, STACK, stack)
                stack.first_alone = _reads_first_alone(model, stack, told)
                return
            handle.remove()
    stack.tail = []


def _reads_first_alone(model: Any, stack: PackedStack, told: Mapping[str, Any]) -> bool:
    """Whether what the model tells of each text hangs on its first token's state alone."""
    whole = getattr(model(**told), "logits", None)
    if whole is None or whole.ndim != 2 or len(whole) != len(told["attention_mask"]):
        return False
    stack.first_alone = True
    return alike(model(**told).logits, whole)


@contextmanager
def asking(model: Any, wanted: torch.Tensor | None) -> Iterator[None]:
    """Within it the body is asked for the states of the tokens `wanted` (rows, longest), or of all.
    Those of others may be zeros."""
    stack = of(model)
    if stack is None:
        yield
        return
    stack.wanted = wanted
    try:
        yield
    finally:
        stack.wanted = None


def of(model: Any) -> PackedStack | None:
    """What packs the model, if its last layer has such a part."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    found: PackedStack | None = getattr(inner.base_model, STACK, None)
    return found
