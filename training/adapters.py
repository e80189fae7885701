"""LoRA's layers at less cost: frozen weights held in 16 bits, and one function in place of PEFT's.

Autocast turns every frozen matrix into 16 bits anew for each micro-batch, and PEFT's forward casts
a layer's input several times and keeps each copy for the backward pass. Here the matrix is turned
once, an input once for all layers that read it, and what is kept is the input and its few
projections. The products are the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from peft.tuners import lora
from torch import nn
from torch.nn import functional

from training import pretrained
from training.casts import Inputs
from training.tasks.base import Task

NAME = "default"
HELD = "held_in_16_bits"
"""A frozen head's buffer beside its matrix, which may be the embeddings' as well."""


class _Adapted(torch.autograd.Function):
    """x Wᵀ + b + scaling · x' Aᵀ Bᵀ of x (rows, in), W (out, in), A (rank, in), B (out, rank). x'
    is x after dropout. W and b are frozen. All are computed in the dtype of x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        learnt = down.dtype
        with torch.autocast(x.device.type, enabled=False):
            weight, down, up = weight.to(x.dtype), down.to(x.dtype), up.to(x.dtype)
            read = x if dropped is None else dropped
            # (rank, rows): with the few rows on the left a CPU takes a third of the time in fp32.
            low = down @ read.T
            out = functional.linear(x, weight, None if bias is None else bias.to(x.dtype))
            out.addmm_(low.T, up.T, alpha=scaling)
        ctx.save_for_backward(read, low, weight, down, up)
        ctx.scaling, ctx.dtype = scaling, learnt
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        read, low, weight, down, up = ctx.saved_tensors
        of_low = (up.T @ grad.T).mul_(ctx.scaling)
        of_up = (low @ grad).mul_(ctx.scaling).to(ctx.dtype).T
        of_down = (of_low @ read).to(ctx.dtype)
        of_x = grad @ weight if ctx.needs_input_grad[0] else None
        of_dropped = None
        if ctx.needs_input_grad[1]:
            of_dropped = of_low.T @ down
        elif of_x is not None:
            of_x.addmm_(of_low.T, down)
        return of_x, of_dropped, None, None, of_down, of_up, None


def install(model: PeftModel) -> None:
    """Compute each plain adapter by one function, in place, from now on."""
    inputs = Inputs()

    def forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
        if layer.disable_adapters or layer.merged:
            plain: torch.Tensor = layer.base_layer(x)
            return plain
        flat = inputs.turned(x).flatten(0, -2)
        base, dropout = layer.base_layer, layer.lora_dropout[NAME]
        dropped = None if isinstance(dropout, nn.Identity) else dropout(flat)
        down, up = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
        flat_out: torch.Tensor = _Adapted.apply(
            flat, dropped, base.weight, base.bias, down, up, layer.scaling[NAME]
        )
        return flat_out.view(*x.shape[:-1], -1)

    for _, layer in _plain(model):
        layer.forward = MethodType(forward, layer)


def hold(model: PeftModel, half: torch.dtype) -> None:
    """Keep the matrices that adapters stand beside in 16 bits, as autocast would turn them each
    time, and a copy of a frozen head's."""
    for _, layer in _plain(model):
        whole = layer.base_layer.weight.detach()
        held = whole.to(half)
        layer.rounded = not torch.equal(held.to(whole.dtype), whole)
        layer.base_layer.weight = nn.Parameter(held, requires_grad=False)
    inner: Any = model.get_base_model()
    head = inner.get_output_embeddings()
    if type(head) is nn.Linear and not head.weight.requires_grad:
        head.register_buffer(HELD, head.weight.detach().to(half), persistent=False)


def matrix(head: Any) -> torch.Tensor:
    """A head's matrix, in 16 bits if it is held so."""
    found: torch.Tensor = getattr(head, HELD, head.weight)
    return found


def whole(model: PeftModel, task: Task[Any]) -> Any:
    """A copy on the CPU, in fp32 and as it was before `hold`, to merge the adapters in: what was
    rounded is read from the base model again. What a merge leaves alone may be shared with it."""
    copies: dict[int, Any] = {}
    base: Any = None
    for name, layer in _plain(model):
        weight = layer.base_layer.weight
        if getattr(layer, "rounded", False):
            base = base or _base(task)
            known = base.get_submodule(name).weight.detach()
        else:
            known = weight.detach().to("cpu", torch.float32, copy=True)
        copies[id(weight)] = nn.Parameter(known, requires_grad=False)
    for layer in model.modules():
        if isinstance(layer, lora.LoraLayer):
            for parameter in layer.parameters():
                copies.setdefault(id(parameter), _on_cpu(parameter, copy=True))
    for parameter in model.parameters():
        copies.setdefault(id(parameter), _on_cpu(parameter, copy=False))
    for buffer in model.buffers():
        copies.setdefault(id(buffer), buffer.cpu())
    return copy.deepcopy(model, copies)


def _on_cpu(parameter: nn.Parameter, *, copy: bool) -> nn.Parameter:
    tensor = parameter.detach().to("cpu", copy=copy)
    return nn.Parameter(tensor, requires_grad=parameter.requires_grad)


def _base(task: Task[Any]) -> Any:
    assert task.base is not None
    config = pretrained.load_config(task.base)
    model, _ = pretrained.load_model(
        task.model_class, task.base, config, seed=task.spec.seed, exact=False
    )
    return model


def _plain(model: PeftModel) -> Iterator[tuple[str, Any]]:
    """The adapted layers that are a matrix product and no variant of LoRA, such as DoRA, with their
    names in the model that was adapted."""
    inner: Any = model.get_base_model()
    for name, layer in inner.named_modules():
        if (
            type(layer) is lora.Linear
            and type(layer.get_base_layer()) is nn.Linear
            and not layer.lora_variant
        ):
            yield name, layer
