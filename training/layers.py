"""Where a model's stacks of layers are, and how deep a parameter lies."""

from __future__ import annotations

from itertools import takewhile

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


def depths(model: nn.Module) -> dict[str, int]:
    """How far below the head each parameter lies: 0 in the head, 1 in the top layer, one more with
    each layer down, and another one in what lies below the layers."""
    found = [(f"{name}.", len(stack)) for name, stack in stacks(model)]
    embedding = _below_the_layers(model, tuple(prefix for prefix, _ in found))

    def depth(name: str, parameter: nn.Parameter) -> int:
        for prefix, layers in found:
            if name.startswith(prefix):
                return layers - int(name.removeprefix(prefix).partition(".")[0])
        # All stacks are equally deep.
        return found[0][1] + 1 if found and id(parameter) in embedding else 0

    return {name: depth(name, parameter) for name, parameter in model.named_parameters()}


def _below_the_layers(model: nn.Module, layers: tuple[str, ...]) -> set[int]:
    """The ids of the embeddings' parameters, and of whatever a model has before its first layer,
    such as the convolutions that hear a wave or see an image: classes name their parts in the order
    in which they come."""
    embedding = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        or type(module).__name__.endswith(("Embeddings", "PatchEmbed"))
        for parameter in module.parameters()
    }
    before = takewhile(lambda named: not named[0].startswith(layers), model.named_parameters())
    return embedding | {id(parameter) for _, parameter in before}
