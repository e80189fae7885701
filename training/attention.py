"""Attention over sequences that stand one behind the other, with no padding between them.

One function, registered with transformers under `NAME`. Called with `segments` it attends within
each sequence alone: on CUDA in half precision by torch's kernel for variable lengths, elsewhere by
one call of SDPA for each run of sequences of equal length, which the layout makes neighbours.
Called without, it is transformers' own SDPA.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from training.dropout import dropout as drop

NAME = "luthier_segments"
HALF = (torch.float16, torch.bfloat16)
LONGEST_WRITTEN_OUT = 256
"""Tokens, beyond which the scores would take memory that SDPA does not."""
KERNEL_CAPABILITY = (8, 0)
LARGEST_HEAD = 256
"""What FlashAttention 2, which `varlen_attn` is, asks of a GPU (Ampere) and of a head."""
NOT_HERE = ("position_bias", "softcap", "s_aux")
"""Parts of other attention functions that SDPA has not, or that are made for a padded batch."""


@dataclass(frozen=True)
class Segments:
    """The layout of a batch without its padding: shorter sequences first, each whole.

    `places` (tokens,) are the tokens' places in the flattened padded batch of `shape` (rows,
    longest), in the order in which they stand here.
    """

    shape: tuple[int, int]
    runs: tuple[tuple[int, int], ...]
    """(length, how many sequences have it), in order."""
    ends: torch.Tensor
    """int32, (sequences + 1,): where each begins, and the end of the last."""
    places: torch.Tensor

    @classmethod
    def of(cls, mask: torch.Tensor) -> Segments:
        """Of an attention mask (rows, longest) whose rows are each one piece of ones."""
        lengths, order = mask.sum(dim=1).sort(stable=True)
        rows, columns = mask[order].nonzero(as_tuple=True)
        ends = functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        runs = tuple((length, len(list(same))) for length, same in groupby(lengths.tolist()))
        shape = (mask.shape[0], mask.shape[1])
        return cls(shape, runs, ends, order[rows] * mask.shape[1] + columns)

    def flat(self, padded: torch.Tensor) -> torch.Tensor:
        """(rows or 1, longest, …) to (1, tokens, …)."""
        whole = padded.expand(self.shape[0], *padded.shape[1:]).flatten(0, 1)
        return whole.index_select(0, self.places).unsqueeze(0)

    def padded(self, flat: torch.Tensor) -> torch.Tensor:
        """(1, tokens, …) to (rows, longest, …), with zeros for padding."""
        rows, longest = self.shape
        whole = flat.new_zeros(rows * longest, *flat.shape[2:])
        return whole.index_copy(0, self.places, flat[0]).view(rows, longest, *flat.shape[2:])


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

    Raises ValueError for what cannot be divided into sequences, such as a mask of the whole.
    """
    if segments is None:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
        )
        return out, None
    if attention_mask is not None or any(kwargs.get(name) is not None for name in NOT_HERE):
        raise ValueError("This model's attention has what does not go with segments.")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    # Under autocast rotary positions, which are in fp32, have made these wider than the value.
    query, key = query.to(value.dtype), key.to(value.dtype)
    grouped = query.shape[1] != key.shape[1]
    longest = segments.runs[-1][0]
    if query.is_cuda and query.dtype in HALF and not dropout and _has_kernel(query):
        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        joined = varlen_attn(
            q, k, v, segments.ends, segments.ends, longest, longest,
            scale=scaling, window_size=(-1, 0) if causal else (-1, -1), enable_gqa=grouped,
        )  # fmt: skip
        assert isinstance(joined, torch.Tensor)
        return joined.unsqueeze(0), None
    outputs, start = [], 0
    for length, count in segments.runs:
        of_run = slice(start, start + length * count)
        q, k, v = (
            part[0, :, of_run].unflatten(1, (count, length)).transpose(0, 1)
            for part in (query, key, value)
        )
        short_half = query.dtype in HALF and length <= LONGEST_WRITTEN_OUT
        if not query.is_cuda and (dropout or short_half):
            out = _written_out(q, k, v, dropout, causal, scaling)
        else:
            out = functional.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=causal, scale=scaling, enable_gqa=grouped
            )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
        start = of_run.stop
    return torch.cat(outputs).unsqueeze(0), None


def _has_kernel(query: torch.Tensor) -> bool:
    """Whether this GPU has the kernel for variable lengths, for heads of this size."""
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
) -> torch.Tensor:
    """Attention as a formula has it, (sequences, heads, length, size) to the same. On a CPU SDPA
    has no fast way with dropout, nor a fast backward pass in 16 bits: written out, sequences of 27
    tokens take a fifth of its time there, of 160 half. In fp32 without dropout SDPA is faster."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scores = query @ key.transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
    if causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu_(1)
        scores = scores.masked_fill(ahead, float("-inf"))
    shares = scores.softmax(dim=-1, dtype=value.dtype)
    return (drop(shares, p) if p else shares) @ value


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
