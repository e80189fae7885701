"""Where a model's stacks of layers are."""

from __future__ import annotations

from torch import nn


def stacks(model: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    """The model's deepest lists of layers, each with its name: one of an encoder or a decoder, two
    of a model that has both."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
    ]
    # A list within a list is a layer's own, such as its experts.
    found = [
        (name, stack)
        for name, stack in found
        if not any(name.startswith(f"{outer}.") for outer, _ in found)
    ]
    deepest = max((len(stack) for _, stack in found), default=0)
    return [(name, stack) for name, stack in found if len(stack) == deepest]
