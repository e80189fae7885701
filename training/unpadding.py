"""No layer works on padding: what stands between the embeddings and the head is packed.

A batch comes padded, as every model class takes it. Before the first layer its sequences are put
one behind the other, and past the last layer the padding comes back, so that embeddings, pooling
and heads of any architecture stay as they are (`packed.py`). The layers' attention is
`attention.attend`, which keeps to each sequence. A model that reads one text and writes another has
two such stacks.

Whether an architecture bears this is not looked up but tried, once, when the model is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from core.errors import InvalidRequest
from models.spec import ResolvedSpec
from training import attention, tail
from training.layers import stacks
from training.mode import evaluating
from training.packed import PackedDecoder, PackedStack

PROBE = (2, 7, 5, 5, 4)
"""Lengths of the sequences that the trial is made with,"""
WRITTEN = (6, 3, 4, 4, 3)
"""and of those that a decoder is given beside them: in another order, some in one call."""
PACK_TOKENS = {"cpu": 2048, "cuda": 16_384}
"""Tokens that go through a packed model at once where the spec leaves it open: as many as keep the
device busy. Every pack more casts all weights once more and adds all gradients once more."""
ADAPTED_TOKENS = {**PACK_TOKENS, "cpu": 640}
"""The same where adapters alone have gradients, which costs a pack little: on a CPU more are hardly
faster, and take more room."""


def tokens_at_once(spec: ResolvedSpec, model: Any, device: str) -> int | None:
    """How many tokens of packed rows go through the model at once; None where rows are padded.

    Raises InvalidRequest where the spec says how many, or demands packing, and they are padded.
    """
    if not wanted(spec, model):
        if spec.micro_batch_tokens is not None:
            raise _needs_padding("micro_batch_tokens")
        return None
    usual = PACK_TOKENS if spec.lora is None else ADAPTED_TOKENS
    return spec.micro_batch_tokens or usual[device]


def wanted(spec: ResolvedSpec, model: Any) -> bool:
    """Do as the spec says; whether padding is dropped. Raises InvalidRequest if it was demanded of
    a model that does not bear it."""
    if spec.packing is False:
        return False
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    installed = install(inner)
    if spec.packing is True and not installed:
        raise _needs_padding("packing")
    return installed


def _needs_padding(param: str) -> InvalidRequest:
    return InvalidRequest(
        "This model's layers need their padding, so rows cannot be packed.",
        hint=f"Leave `{param}` out: rows of like length go together then.",
        param=param,
    )


def install(model: PreTrainedModel) -> bool:
    """Drop padding within this model from now on; whether it can be done.

    A model that computes anything else by it, or cannot be called like this, is left as it was.
    """
    if model.main_input_name != "input_ids" or not model._can_set_attn_implementation():
        return False
    found, before = _stacks(model), model.config._attn_implementation
    if not found:
        return False
    padded = _probe(model)
    hooks = [kind(body, layers, end) for kind, body, layers, end in found]
    try:
        model.set_attn_implementation(attention.NAME)
        packed = _probe(model)
    except tail.MISFITS:
        packed = []
    if not packed or not all(one.used for one in hooks) or not all(map(tail.alike, packed, padded)):
        for one in hooks:
            one.remove()
        model.set_attn_implementation(before)
        return False
    if len(hooks) == 1:
        told, _ = _inputs(model)
        tail.install(model, hooks[0], found[0][2][-1], told)
    return True


def _stacks(model: Any) -> list[tuple[type[PackedStack], nn.Module, nn.ModuleList, nn.Module]]:
    """What each stack of this model is packed by, its body, its layers, and where it ends. Nothing
    where the stacks are not one, or an encoder's and a decoder's that is told what to write."""
    if not model.config.is_encoder_decoder:
        body = model.base_model
        return [(PackedStack, body, found, found[-1]) for found in _one(body)]
    if not model.can_generate():
        return []
    encoder, decoder = model.get_encoder(), model.get_decoder()
    read = [(PackedStack, encoder, found, encoder) for found in _one(encoder)]
    written = [(PackedDecoder, decoder, found, decoder) for found in _one(decoder)]
    return [*read, *written] if read and written else []


def _one(body: nn.Module) -> list[nn.ModuleList]:
    """Its stack of layers, unless it has none or several."""
    found = [layers for _, layers in stacks(body)]
    return found if len(found) == 1 else []


def _probe(model: Any) -> list[torch.Tensor]:
    """What the body makes of some tokens, where they are no padding: (tokens, size), by a decoder
    and its encoder each."""
    told, masks = _inputs(model)
    body = model.base_model
    with evaluating(body), torch.no_grad():
        if not model.config.is_encoder_decoder:
            return [body(**told)[0][masks[0]].float()]
        found = body(**told, use_cache=False)
        return [found.encoder_last_hidden_state[masks[0]].float(), found[0][masks[1]].float()]


def _inputs(model: Any) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """The tokens of the trial, as the model takes them, and where they are no padding."""
    config = model.config
    if config.is_encoder_decoder:
        sides = [(model.get_encoder(), PROBE), (model.get_decoder(), WRITTEN)]
        sizes = [(len(side.get_input_embeddings().weight), lengths) for side, lengths in sides]
    else:
        sizes = [(int(config.vocab_size), PROBE)]
    told, masks = {}, []
    for prefix, (vocabulary, lengths) in zip(("", "decoder_"), sizes, strict=False):
        mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, vocabulary, mask.shape, generator=generator)
        told[f"{prefix}input_ids"] = tokens.to(model.device)
        told[f"{prefix}attention_mask"] = mask.long().to(model.device)
        masks.append(mask.to(model.device))
    return told, masks
