"""Cross-entropy over a vocabulary without ever holding all of its logits.

Of a chat few positions are learnt, and each one's logits are as many numbers as the vocabulary has
words. So the head sees the learnt positions alone, and where it is one matrix some of them at a
time: their loss and its gradient are taken at once and the logits forgotten. (The method is that of
Liger's fused linear cross-entropy, arXiv 2410.10989, section 3.2.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional

from training import adapters, tail
from training.layout import ROUND
from training.mode import evaluating
from training.tasks.base import Loss

CHUNK_LOGITS = 1 << 23
"""Logits held at a time: 32 MiB in fp32."""


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        smoothing: float,
        learning: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kind, dtype = hidden.device.type, hidden.dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        vocabulary = len(weight)
        matrix = weight.to(dtype)
        offsets = None if bias is None else bias.to(dtype)
        wants_hidden, wants_weight, wants_bias = (
            learning and needed for needed in ctx.needs_input_grad[:3]
        )
        of_hidden = torch.empty_like(hidden) if wants_hidden else None
        of_weight = torch.zeros_like(weight) if wants_weight else None
        of_bias = torch.zeros_like(weight[:, 0]) if wants_bias else None
        loss, right = hidden.new_zeros((), dtype=torch.float32), targets.new_zeros(())
        multiple = ROUND if kind == "cpu" and dtype != torch.float32 else 1
        size = max(1, CHUNK_LOGITS // vocabulary // multiple) * multiple
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(targets), size):
                here = slice(start, start + size)
                states, wanted = hidden[here].to(dtype), targets[here, None]
                # As packs are: a product of a new size costs more than the rows that fill it up.
                filling = -len(wanted) % multiple
                states = functional.pad(states, (0, 0, 0, filling))
                filled = functional.linear(states, matrix, offsets).float().log_softmax(dim=-1)
                logs = filled[: len(wanted)]
                told = logs.gather(1, wanted)
                # Each word but for smoothing's share of the weight, which all words have alike.
                loss -= (1 - smoothing) * told.sum()
                if smoothing:
                    loss -= smoothing * logs.mean(dim=-1).sum()
                right += _right(logs, told, wanted)
                if not (wants_hidden or wants_weight or wants_bias):
                    continue
                slope = filled.exp_()
                if smoothing:
                    slope -= smoothing / vocabulary
                slope[: len(wanted)].scatter_add_(
                    1, wanted, slope.new_full(wanted.shape, smoothing - 1)
                )
                slope[len(wanted) :] = 0
                if of_bias is not None:
                    of_bias += slope.sum(dim=0)
                slope = slope.to(dtype)
                if of_hidden is not None:
                    of_hidden[here] = (slope @ matrix)[: len(wanted)]
                if of_weight is not None:
                    of_weight += slope.T @ states
        ctx.save_for_backward(of_hidden, of_weight, of_bias)
        right = right.float()
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return *(None if g is None else g * grads[0] for g in ctx.saved_tensors), None, None, None


def _right(logs: torch.Tensor, told: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How many rows of `logs` have their greatest number, the first if there are several, at the
    place `wanted`. On a CPU argmax takes eight times as long as the maximum alone: only rows that
    may be right are given to it."""
    if logs.is_cuda:
        return (logs.argmax(dim=-1, keepdim=True) == wanted).sum()
    likely = (told == logs.amax(dim=-1, keepdim=True))[:, 0]
    return (logs[likely].argmax(dim=-1) == wanted[likely, 0]).sum()


def chunked(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    smoothing: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed cross-entropy, right guesses) in fp32, of hidden states (tokens, size), a head's
    weight (vocabulary, size) and bias (vocabulary,), and targets (tokens,)."""
    learning = torch.is_grad_enabled()
    of: tuple[torch.Tensor, torch.Tensor] = _Chunked.apply(
        hidden, weight, bias, targets, smoothing, learning
    )
    return of


def has_plain_head(model: Any) -> bool:
    """Whether the model's logits are one linear map of its body's hidden states, by trial."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    tokens = torch.arange(4, device=model.device)[None] % int(model.config.vocab_size)
    with evaluating(model), torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits
        mapped = head(model.base_model(input_ids=tokens, use_cache=False)[0])
    return torch.equal(logits, mapped)


def of_head(
    model: Any,
    inputs: Mapping[str, Any],
    known: torch.Tensor,
    targets: torch.Tensor,
    accuracy: str,
) -> Loss:
    """The loss at the places `known` (rows, tokens) of a model with a plain head: each is to tell
    its target, of which there is one for each known place."""
    inner = inner_model(model)
    hidden = inner.base_model(**inputs)[0][known]
    head = inner.get_output_embeddings()
    summed, right = chunked(hidden, adapters.matrix(head), head.bias, targets)
    return loss_of(summed, right, len(targets), accuracy)


def of_logits(
    model: Any,
    inputs: Mapping[str, Any],
    known: torch.Tensor,
    targets: torch.Tensor,
    accuracy: str,
) -> Loss:
    """The same for a head of whatever kind, which is shown the known places alone."""
    inner = inner_model(model)

    def narrow(body: nn.Module, args: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[known][None]
        return output

    handle = inner.base_model.register_forward_hook(narrow)
    try:
        with tail.asking(model, known):
            logits = model(**inputs).logits[0].float()
    finally:
        handle.remove()
    summed = functional.cross_entropy(logits, targets, reduction="sum")
    right = (logits.detach().argmax(dim=-1) == targets).float().sum()
    return loss_of(summed, right, len(targets), accuracy)


def inner_model(model: Any) -> Any:
    """The model that adapters stand in, or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def loss_of(summed: torch.Tensor, right: torch.Tensor, count: int, accuracy: str) -> Loss:
    """What `chunked` gave for so many targets. `outputs` is what `metrics.TokenScores` takes."""
    sums = torch.stack([summed.detach().double(), right.double(), right.new_tensor(count).double()])
    return Loss(summed, count, sums, {accuracy: right})
