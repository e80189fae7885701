"""Attention of packed sequences on a CPU, a block of queries at a time.

torch's own has no fast way there with dropout, nor a fast backward pass in 16 bits, and takes up to
twice the time of this for long texts. What a block of queries makes of its keys fits into the
processor's cache; a causal block is not shown what comes behind it; heads that share keys are rows
of one product; and of long texts no scores are kept, for the backward pass makes them again (Dao et
al. 2022, section 3.1, with blocks of queries alone).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from training.dropout import dropout as drop
from training.layout import Group

BLOCK = 128
"""Queries of a block."""
LONGEST_KEPT = 256
"""Keys, up to which the scores are kept: to make them again costs more than their memory."""


def attention(
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
    """softmax(scale · Q Kᵀ + bias) V within each sequence of query (tokens, heads, size), key and
    value (tokens, heads or fewer, size); the result is as the query, zeros behind the last group.

    `bias` (heads, longest, longest) is added to the scores, of a shorter sequence its corner.
    """
    out: torch.Tensor = _Attention.apply(query, key, value, bias, groups, scale, causal, dropout)
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        groups: Sequence[Group],
        scale: float,
        causal: bool,
        p: float,
    ) -> torch.Tensor:
        out = torch.empty(query.shape, dtype=query.dtype)
        ctx.groups, ctx.scale, ctx.causal, ctx.p = groups, scale, causal, p
        ctx.shapes = query.shape, key.shape
        kept: list[torch.Tensor] = []
        with torch.autocast("cpu", enabled=False):
            for group, tokens, seen in _parts(groups):
                keys, values = _by_head(key, group, seen), _by_head(value, group, seen)
                rows = _rows(query[tokens], group, key.shape[1], scale)
                kept += [rows, keys, values]
                into = _rows_of(out[tokens], group, key.shape[1])
                for block, until in _blocks(group, causal):
                    shares = _shares(rows, keys, bias, group, causal, block, until)
                    dropped = drop(shares, p) if p else shares
                    if p or group.keys <= LONGEST_KEPT:
                        kept += [shares, dropped]
                    read = torch.bmm(dropped, values[:, :until])
                    into[..., block, :] = _apart(read, into)
            out[tokens.stop :] = 0
        ctx.save_for_backward(bias, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        bias, *rest = ctx.saved_tensors
        kept = iter(rest)
        queries, looked_at = ctx.shapes
        of_query = torch.empty(queries, dtype=grad.dtype)
        of_key, of_value = (torch.empty(looked_at, dtype=grad.dtype) for _ in range(2))
        of_bias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        for group, tokens, seen in _parts(ctx.groups):
            rows, keys, values = next(kept), next(kept), next(kept)
            slopes = _rows(grad[tokens], group, looked_at[1])
            into = _rows_of(of_query[tokens], group, looked_at[1])
            blocks = _blocks(group, ctx.causal)
            of_keys, of_values = _Sum(keys, blocks), _Sum(values, blocks)
            for block, until in blocks:
                if ctx.p or group.keys <= LONGEST_KEPT:
                    shares, dropped = next(kept), next(kept)
                else:
                    shares = _shares(rows, keys, bias, group, ctx.causal, block, until)
                    dropped = shares
                slope = slopes[..., block, :].reshape(len(keys), -1, queries[2])
                of_values.add(torch.bmm(dropped.mT, slope))
                of_scores = torch.bmm(slope, values[:, :until].mT)
                if ctx.p:
                    of_scores *= dropped
                    of_scores.addcmul_(shares, of_scores.sum(dim=-1, keepdim=True), value=-1)
                else:
                    of_scores = torch._softmax_backward_data(of_scores, shares, -1, shares.dtype)
                if of_bias is not None:
                    heads = _apart(of_scores, into).flatten(1, 2).sum(dim=0)
                    of_bias[:, block, :until] += heads
                asking = rows[..., block, :].reshape(len(keys), -1, queries[2])
                of_keys.add(torch.bmm(of_scores.mT, asking))
                of_asking = _apart(torch.bmm(of_scores, keys[:, :until]), into)
                torch.mul(of_asking, ctx.scale, out=into[..., block, :])
            _put(of_key, of_keys.whole, group, seen)
            _put(of_value, of_values.whole, group, seen)
        of_query[tokens.stop :] = 0
        for part in (of_key, of_value):
            part[seen.stop :] = 0
        return of_query, of_key, of_value, of_bias, None, None, None, None


class _Sum:
    """The gradients of keys or values, to which every block adds those of the first few. Several
    are summed in fp32."""

    def __init__(self, like: torch.Tensor, blocks: Sequence[Any]) -> None:
        self.whole: torch.Tensor | None = None
        if len(blocks) > 1:
            self.whole = torch.zeros_like(like, dtype=torch.float32)

    def add(self, gradients: torch.Tensor) -> None:
        if self.whole is None:
            self.whole = gradients
        else:
            self.whole[:, : gradients.shape[1]] += gradients


def _parts(groups: Sequence[Group]) -> Iterator[tuple[Group, slice, slice]]:
    """Each group, and where its tokens and what they look at lie."""
    first = source = 0
    for group in groups:
        end, until = first + group.count * group.queries, source + group.whole
        yield group, slice(first, end), slice(source, until)
        first, source = end, until


def _blocks(group: Group, causal: bool) -> list[tuple[slice, int]]:
    """The queries of each block, and how many keys it is shown."""
    ends = [min(start + BLOCK, group.queries) for start in range(0, group.queries, BLOCK)]
    return [
        (slice(place * BLOCK, end), end if causal else group.keys) for place, end in enumerate(ends)
    ]


def _shares(
    rows: torch.Tensor,
    keys: torch.Tensor,
    bias: torch.Tensor | None,
    group: Group,
    causal: bool,
    block: slice,
    until: int,
) -> torch.Tensor:
    """The softmax of a block's scores, (sequences · heads of keys, rows, keys)."""
    asking = rows[..., block, :].reshape(len(keys), -1, rows.shape[-1])
    scores = torch.bmm(asking, keys[:, :until].mT)
    apart = _apart(scores, rows)
    if bias is not None:
        apart += bias[:, block, :until].unflatten(0, rows.shape[1:3])
    if group.hidden is not None:
        apart += group.hidden[:, :, None]
    if causal:
        # Added, for to fill what a mask tells takes a CPU four times as long.
        ahead = scores.new_full((apart.shape[-2], apart.shape[-2]), -torch.inf).triu_(1)
        apart[..., block.start :] += ahead
    return scores.softmax(dim=-1)


def _rows_of(states: torch.Tensor, group: Group, heads: int) -> torch.Tensor:
    """A view of states (count · queries, heads, size) as (count, heads of keys, heads that share
    them, queries, size)."""
    apart = states.view(group.count, group.queries, heads, -1, states.shape[-1])
    return apart.permute(0, 2, 3, 1, 4)


def _rows(states: torch.Tensor, group: Group, heads: int, scale: float = 1.0) -> torch.Tensor:
    """The same, times `scale`, as a copy of its own."""
    view = _rows_of(states, group, heads)
    return torch.mul(view, scale, out=torch.empty(view.shape, dtype=view.dtype))


def _apart(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(sequences · heads of keys, rows, any) as `_rows` has them."""
    return rows.view(*like.shape[:3], -1, rows.shape[-1])


def _by_head(states: torch.Tensor, group: Group, seen: slice) -> torch.Tensor:
    """A group's keys or values, (count · heads, keys, size)."""
    return group.looked_at(states[seen]).reshape(-1, group.keys, states.shape[-1])


def _put(to: torch.Tensor, states: torch.Tensor | None, group: Group, seen: slice) -> None:
    """The inverse of `_by_head`: write a group's gradients into those of all that is looked at."""
    assert states is not None
    by_key = states.unflatten(0, (group.count, -1)).transpose(1, 2)
    if group.places is None:
        to[seen].view(by_key.shape).copy_(by_key)
    else:
        to[seen] = 0
        to[seen].index_add_(0, group.places, by_key.flatten(0, 1).to(to.dtype))
