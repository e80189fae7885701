"""Attention over sequences that stand one behind the other, with no padding between them.

One function, registered with transformers under `NAME`. Called with `segments` it attends within
each sequence alone, and of a decoder's to the one of the encoder's that belongs to it: on CUDA in
half precision by torch's kernel for variable lengths, elsewhere by groups of sequences of like
length, which the layout makes neighbours: on a CPU by blocks of queries (`blockwise.py`), on other
GPUs by a call of SDPA each. Called without, it is transformers' own SDPA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from training import blockwise
from training.layout import Group, Segments

NAME = "luthier_segments"
HALF = (torch.float16, torch.bfloat16)
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
        bias = bias.view(-1, longest, longest) if bias.numel() else None
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    # A decoder's attention that is not causal looks at the encoder's sequences.
    source = segments if causal else segments.source or segments
    # Under autocast rotary positions, which are in fp32, have made these wider than the value.
    query, key = query.to(value.dtype), key.to(value.dtype)
    grouped = query.shape[1] != key.shape[1]
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    if bias is None and not dropout and _has_kernel(query):
        joined = varlen_attn(
            q, k, v, segments.ends, source.ends, segments.longest, source.longest,
            scale=scaling, window_size=(-1, 0) if causal else (-1, -1), enable_gqa=grouped,
        )  # fmt: skip
        assert isinstance(joined, torch.Tensor)
        return joined.unsqueeze(0), None
    groups = segments.within if source is segments else segments.across
    scale = scaling or query.shape[-1] ** -0.5
    way = by_sdpa if query.is_cuda else blockwise.attention
    out = way(q, k, v, groups, scale=scale, causal=causal, bias=bias, dropout=dropout)
    return out.unsqueeze(0), None


def by_sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    groups: Sequence[Group],
    *,
    scale: float,
    causal: bool,
    bias: torch.Tensor | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """The same as `blockwise.attention`, by torch's own for each group."""
    # One split, so that in the backward pass the pieces' gradients are put together at once.
    queries = query.split([group.count * group.queries for group in groups])
    keys, values = (part.split([group.whole for group in groups]) for part in (key, value))
    outputs = []
    for group, *pieces in zip(groups, queries, keys, values, strict=True):
        q, k, v = group.separate(pieces[0]), *map(group.looked_at, pieces[1:])
        added = _added(group, bias, q, causal)
        out = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=added, dropout_p=dropout,
            is_causal=causal and added is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)


def _added(
    group: Group, bias: torch.Tensor | None, query: torch.Tensor, causal: bool
) -> torch.Tensor | None:
    """What is added to the scores of this group, if anything is: minus infinity at padding, or a
    bias by the distance between tokens, which then tells what a causal model does not see."""
    if bias is None:
        return None if group.hidden is None else group.hidden.to(query.dtype)
    # A shorter sequence's bias is the corner of the longest one's.
    corner = bias[None, :, : group.queries, : group.keys].to(query.dtype)
    if causal:
        ahead = torch.ones(corner.shape[-2:], dtype=torch.bool, device=corner.device).triu_(1)
        return corner.masked_fill(ahead, -torch.inf)
    # A GPU's kernel may want its rows aligned.
    return corner.contiguous()


def _has_kernel(query: torch.Tensor) -> bool:
    """Whether this is on a GPU that has the kernel for variable lengths, for such heads."""
    if not query.is_cuda or query.dtype not in HALF:
        return False
    size = query.shape[-1]
    capable = torch.cuda.get_device_capability(query.device) >= KERNEL_CAPABILITY
    return capable and size % 8 == 0 and size <= LARGEST_HEAD


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
