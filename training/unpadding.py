"""No layer works on padding: what stands between the embeddings and the head is packed.

A batch comes padded, as every model class takes it. Before the first layer its sequences are put
one behind the other, and past the last layer the padding comes back, so that embeddings, pooling
and heads of any architecture stay as they are. The layers' attention is `attention.attend`, which
keeps to each sequence.

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
from training import attention
from training.attention import Segments
from training.layers import stacks

PROBE = (2, 7, 5)
"""Lengths of the sequences that the trial is made with."""
TOLERANCE = 1e-4
"""Of what the trial's hidden states may differ by, relative to the largest: the order of sums. Two
sequences that see each other differ by a hundred times as much."""
PACK_TOKENS = {"cpu": 2048, "cuda": 16_384}
"""Tokens that go through a packed model at once where the spec leaves it open: as many as keep the
device busy. Every pack more casts all weights once more and adds all gradients once more."""
ADAPTED_TOKENS = {**PACK_TOKENS, "cpu": 1024}
"""The same where adapters alone have gradients: on a CPU more are no faster, and take more room."""
WINDOWS = ("sliding_window", "attention_chunk_size", "local_attention")


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
    found = stacks(model.base_model)
    before = model.config._attn_implementation
    if (
        len(found) != 1
        or model.config.is_encoder_decoder
        or model.main_input_name != "input_ids"
        or not model._can_set_attn_implementation()
    ):
        return False
    padded = _probe(model)
    unpadding = _Unpadding(model.base_model, found[0][1])
    try:
        model.set_attn_implementation(attention.NAME)
        packed = _probe(model)
    except (ValueError, TypeError, RuntimeError, IndexError, KeyError, AttributeError):
        packed = None
    if (
        packed is None
        or not unpadding.used
        or not torch.allclose(packed, padded, atol=TOLERANCE * float(padded.abs().max()), rtol=0)
    ):
        unpadding.remove()
        model.set_attn_implementation(before)
        return False
    return True


class _Unpadding:
    """The hooks on a body and its layers, and the layout of the batch under way.

    The layout stays until the next batch: with gradient checkpointing the layers run once more
    during the backward pass.
    """

    def __init__(self, body: nn.Module, layers: nn.ModuleList) -> None:
        self.segments: Segments | None = None
        self.used = False
        self._flat: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        config: Any = body.config
        limits = [getattr(config, name, None) for name in WINDOWS]
        self._longest = min((limit for limit in limits if isinstance(limit, int)), default=None)
        self._handles = [body.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for layer in layers:
            self._handles.append(layer.register_forward_pre_hook(self._enter, with_kwargs=True))
        self._handles.append(layers[-1].register_forward_hook(self._leave))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(
        self, body: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Take the mask of a batch that comes whole: one that goes on from a cache does not."""
        mask = kwargs.get("attention_mask")
        self.segments, self._flat = None, {}
        if (
            not isinstance(mask, torch.Tensor)
            or mask.ndim != 2
            or kwargs.get("past_key_values") is not None
            or kwargs.get("use_cache")
            or (self._longest is not None and mask.shape[1] > self._longest)
        ):
            return None
        self.segments, self.used = Segments.of(mask), True
        return args, {**kwargs, "attention_mask": None, "use_cache": False}

    def _enter(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self.segments is None:
            return None
        flat = {name: self._flattened(value) for name, value in kwargs.items()}
        return tuple(map(self._flattened, args)), {**flat, "segments": self.segments}

    def _leave(self, layer: nn.Module, args: Any, output: Any) -> Any:
        if self.segments is None:
            return None
        if isinstance(output, tuple):
            return self.segments.padded(output[0]), *output[1:]
        return self.segments.padded(output)

    def _flattened(self, value: Any) -> Any:
        """What holds a value for each place of the padded batch, for each token."""
        assert self.segments is not None
        if isinstance(value, tuple):
            return tuple(map(self._flattened, value))
        rows, longest = self.segments.shape
        if (
            not isinstance(value, torch.Tensor)
            or value.ndim < 2
            or value.shape[0] not in (1, rows)
            or value.shape[1] != longest
        ):
            return value
        if value.requires_grad:
            return self.segments.flat(value)
        # Positions and the like, which every layer is given anew.
        if id(value) not in self._flat:
            self._flat[id(value)] = value, self.segments.flat(value)
        return self._flat[id(value)][1]


def _probe(model: PreTrainedModel) -> torch.Tensor:
    """The body's hidden states of some tokens, where they are no padding: (tokens, size)."""
    body = model.base_model
    mask = torch.arange(max(PROBE))[None, :] < torch.tensor(PROBE)[:, None]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, int(model.config.vocab_size), mask.shape, generator=generator)
    was_training = body.training
    body.eval()
    try:
        with torch.no_grad():
            mask, tokens = mask.to(model.device), tokens.to(model.device)
            hidden: torch.Tensor = body(input_ids=tokens, attention_mask=mask.long())[0]
    finally:
        body.train(was_training)
    return hidden[mask].float()
