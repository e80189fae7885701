"""The loss of the text that an encoder-decoder is to write, of its learnt places alone.

A vocabulary's logits are most of the memory of such a model, and of a small one most of its work.
Where they are one matrix's work the head is shown nothing at all: what it would have been shown
goes to `cross_entropy.chunked`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from training import adapters
from training.cross_entropy import chunked, inner_model, loss_of
from training.decoding import starts
from training.mode import evaluating
from training.sequences import IGNORED
from training.tasks.base import Batch, Loss
from training.tasks.text import token_loss

TOLERANCE = 1e-5
"""Of what the trial's logits may differ by, relative to the largest: the order of two additions."""


def has_plain_head(model: Any) -> bool:
    """Whether the model's logits are one linear map of what its head is shown, by trial."""
    if not isinstance(model.get_output_embeddings(), nn.Linear):
        return False
    tokens = torch.arange(4, device=model.device)[None]
    given = {"input_ids": tokens, "use_cache": False}
    try:
        with evaluating(model), torch.no_grad():
            logits = model(**given, labels=tokens).logits
            with _not_shown(model, torch.ones_like(tokens, dtype=torch.bool)) as hidden:
                model(**given, decoder_input_ids=starts(model, tokens))
            mapped = functional.linear(hidden[0], *_map(model))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return False
    return torch.allclose(mapped, logits[0], atol=TOLERANCE * float(logits.abs().max()), rtol=0)


def loss(model: Any, batch: Batch, accuracy: str, *, plain_head: bool) -> Loss:
    """Cross-entropy of the targets (rows, longest), each told from those before it. `outputs` is
    what `metrics.TokenScores` takes."""
    inner = inner_model(model)
    known = batch.targets != IGNORED
    # What a decoder reads is as long as what it writes, whichever tokens that are; a start always.
    reads = known.clone()
    reads[:, :1] = True
    given = {**batch.inputs, "decoder_attention_mask": reads.long(), "use_cache": False}
    if not plain_head:
        logits = model(**given, labels=batch.targets).logits
        return token_loss(logits, batch.targets, accuracy)
    with _not_shown(inner, known) as hidden:
        model(**given, decoder_input_ids=starts(inner, batch.targets))
    wanted = batch.targets[known]
    summed, right = chunked(hidden[0], *_map(inner), wanted)
    return loss_of(summed, right, len(wanted), accuracy)


@contextmanager
def _not_shown(model: Any, known: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Within it the model makes no logits. What its head would have been shown at the known places
    comes into the list: (places, size)."""
    hidden: list[torch.Tensor] = []

    def keep(head: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden.append(args[0][known])
        return (hidden[0][:0],)

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield hidden
    finally:
        handle.remove()


def _map(model: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weight (vocabulary, size) and bias (vocabulary,) from what the head is shown to logits.
    Marian and BART keep a bias beside the head."""
    head = model.get_output_embeddings()
    bias, beside = head.bias, getattr(model, "final_logits_bias", None)
    if beside is not None:
        bias = beside[0] if bias is None else bias + beside[0]
    return adapters.matrix(head), bias
