"""Attention over sequences that stand one behind the other, with no padding between them.

One function, registered with transformers under `NAME`. Called with `segments` it attends within
each sequence alone, and of a decoder's to the one of the encoder's that belongs to it: on CUDA in
half precision by torch's kernel for variable lengths, elsewhere by one call of SDPA for each group
of sequences of like length, which the layout makes neighbours. Called without, it is transformers'
own SDPA.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from training.dropout import dropout as drop
from training.layout import Group, Segments

NAME = "luthier_segments"
HALF = (torch.float16, torch.bfloat16)
LONGEST_WRITTEN_OUT = 256
"""Tokens, beyond which the scores would take memory that SDPA does not."""
KERNEL_CAPABILITY = (8, 0)
LARGEST_HEAD = 256
"""What FlashAttention 2, which `varlen_attn` is, asks of a GPU (Ampere) and of a head."""
NOT_HERE = ("softcap", "s_aux")
"""Parts of other attention functions that SDPA has not."""


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: query (1, heads, tokens, size), key and value with as many heads or
    fewer; the result is (1, tokens, heads, size).

    A `position_bias`, which is added to the scores, is that of the longest sequence, (heads *
    longest * longest,), or has no element, which adds nothing.

    Raises ValueError for what cannot be divided into sequences, such as a mask of the whole.
    """
    if segments is None:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
        )
        return out, None
    bias = kwargs.get("position_bias")
    if (
        attention_mask is not None
        or any(kwargs.get(name) is not None for name in NOT_HERE)
        or (bias is not None and bias.ndim != 1)
    ):
        raise ValueError("This model's attention has what does not go with segments.")
    if bias is not None:
        longest = segments.shape[1]
        bias = bias.view(1, -1, longest, longest) if bias.numel() else None
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    # A decoder's attention that is not causal looks at the encoder's sequences.
    source = segments if causal else segments.source or segments
    # Under autocast rotary positions, which are in fp32, have made these wider than the value.
    query, key = query.to(value.dtype), key.to(value.dtype)
    grouped = query.shape[1] != key.shape[1]
    q = query[0].transpose(0, 1)[: segments.tokens]
    k, v = (part[0].transpose(0, 1)[: source.tokens] for part in (key, value))
    if bias is None and not dropout and _has_kernel(query):
        joined = varlen_attn(
            q, k, v, segments.ends, source.ends, segments.longest, source.longest,
            scale=scaling, window_size=(-1, 0) if causal else (-1, -1), enable_gqa=grouped,
        )  # fmt: skip
        assert isinstance(joined, torch.Tensor)
        return joined.unsqueeze(0), None
    groups = segments.within if source is segments else segments.across
    # One split, so that in the backward pass the pieces' gradients are put together at once.
    queries = q.split([group.count * group.queries for group in groups])
    keys, values = (part.split([group.whole for group in groups]) for part in (k, v))
    outputs = []
    for group, *pieces in zip(groups, queries, keys, values, strict=True):
        q, k, v = group.separate(pieces[0]), *map(group.looked_at, pieces[1:])
        added = _added(group, bias, q, causal)
        short_half = q.dtype in HALF and group.keys <= LONGEST_WRITTEN_OUT
        if not q.is_cuda and (dropout or short_half or bias is not None):
            out = _written_out(q, k, v, dropout, causal, scaling, added)
        else:
            out = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=added, dropout_p=dropout,
                is_causal=causal and added is None, scale=scaling, enable_gqa=grouped,
            )  # fmt: skip
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    if segments.filled:
        outputs.append(outputs[0].new_zeros(segments.filled, *outputs[0].shape[1:]))
    return torch.cat(outputs).unsqueeze(0), None


def _added(
    group: Group, bias: torch.Tensor | None, query: torch.Tensor, causal: bool
) -> torch.Tensor | None:
    """What is added to the scores of this group, if anything is: minus infinity at padding, or a
    bias by the distance between tokens, which then tells what a causal model does not see."""
    if bias is None:
        return None if group.hidden is None else group.hidden.to(query.dtype)
    # A shorter sequence's bias is the corner of the longest one's.
    corner = bias[..., : group.queries, : group.keys].to(query.dtype)
    if causal:
        return corner.masked_fill(_ahead(corner), -torch.inf)
    # A GPU's kernel may want its rows aligned.
    return corner.contiguous()


def _ahead(scores: torch.Tensor) -> torch.Tensor:
    """Where a causal model's scores (…, queries, keys) are of what is still to come."""
    return torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu_(1)


def _has_kernel(query: torch.Tensor) -> bool:
    """Whether this is on a GPU that has the kernel for variable lengths, for such heads."""
    if not query.is_cuda or query.dtype not in HALF:
        return False
    size = query.shape[-1]
    capable = torch.cuda.get_device_capability(query.device) >= KERNEL_CAPABILITY
    return capable and size % 8 == 0 and size <= LARGEST_HEAD


def _written_out(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    p: float,
    causal: bool,
    scaling: float | None,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention as a formula has it, (sequences, heads, length, size) to the same. On a CPU SDPA
    has no fast way with dropout, nor a fast backward pass in 16 bits: written out, sequences of 27
    tokens take a fifth of its time there, of 160 half. In fp32 without dropout SDPA is faster."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scores = query @ key.transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
    if added is not None:
        scores = scores + added
    elif causal:
        scores = scores.masked_fill(_ahead(scores), float("-inf"))
    shares = scores.softmax(dim=-1, dtype=value.dtype)
    return (drop(shares, p) if p else shares) @ value


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
