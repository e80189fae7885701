"""The layout of a batch without its padding: sequences one behind the other, and which of them
attention takes together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import torch
from torch.nn import functional

ROUND = 64
"""Tokens. On a CPU each new size of a matrix product in 16 bits costs as much as some products: a
kernel is made for it. So packs are filled up to a multiple of this."""
MOST_PADDING = 2
"""How many times as long as the shortest the longest of a group may be that is padded for one call:
what a call more costs is little beside that."""


@dataclass(frozen=True)
class Group:
    """Neighbouring sequences whose attention is one call."""

    count: int
    queries: int
    """Tokens of each."""
    keys: int
    """Tokens of what each looks at: of the longest, where these differ."""
    whole: int
    """Tokens of all that is looked at."""
    places: torch.Tensor | None = None
    """(count * keys,): which of them each key is, and at padding any; None without padding."""
    hidden: torch.Tensor | None = None
    """(count, 1, 1, keys): minus infinity at padding, to be added to the scores."""

    @classmethod
    def of(cls, queries: int, lengths: Sequence[int], device: torch.device) -> Group:
        """Of sequences of `queries` tokens each that look at others of these lengths."""
        count, keys, whole = len(lengths), max(lengths), sum(lengths)
        if whole == count * keys:
            return cls(count, queries, keys, whole)
        own = torch.tensor(lengths, device=device)[:, None]
        steps = torch.arange(keys, device=device)
        places = own.cumsum(0) - own + torch.minimum(steps, own - 1)
        hidden = torch.zeros(places.shape, device=device).masked_fill_(steps >= own, -torch.inf)
        return cls(count, queries, keys, whole, places.flatten(), hidden[:, None, None])

    def separate(self, queries: torch.Tensor) -> torch.Tensor:
        """(count * queries, heads, size) to (count, heads, queries, size)."""
        return queries.view(self.count, self.queries, *queries.shape[1:]).transpose(1, 2)

    def looked_at(self, states: torch.Tensor) -> torch.Tensor:
        """(whole, heads, size), of keys or values, to (count, heads, keys, size)."""
        if self.places is not None:
            states = states.index_select(0, self.places)
        return states.view(self.count, self.keys, *states.shape[1:]).transpose(1, 2)


@dataclass(frozen=True)
class Segments:
    """The layout of a batch without its padding: each sequence whole, shorter ones first.

    `places` (tokens,) are the tokens' places in the flattened padded batch of `shape` (rows,
    longest), in the order in which they stand here.
    """

    shape: tuple[int, int]
    runs: tuple[tuple[int, int], ...]
    """(length, how many sequences have it), in order."""
    ends: torch.Tensor
    """int32, (sequences + 1,): where each begins, and the end of the last."""
    places: torch.Tensor
    """Behind the sequences some may stand that fill the pack up: nothing is learnt of what is made
    of them."""
    source: Segments | None = None
    """Of a decoder's sequences: those of the encoder that they look at as well, in their order."""

    @classmethod
    def of(cls, mask: torch.Tensor, order: torch.Tensor | None = None) -> Segments:
        """Of an attention mask (rows, longest) whose rows are each one piece of ones. `order` says
        which row stands where, if not the shorter ones first."""
        lengths = mask.sum(dim=1)
        if order is None:
            order = lengths.argsort(stable=True)
        lengths = lengths[order]
        rows, columns = mask[order].nonzero(as_tuple=True)
        ends = functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        runs = tuple((length, len(list(same))) for length, same in groupby(lengths.tolist()))
        shape = (mask.shape[0], mask.shape[1])
        return cls(shape, runs, ends, _filled_up(order[rows] * mask.shape[1] + columns))

    @classmethod
    def of_pairs(cls, mask: torch.Tensor, source: torch.Tensor) -> Segments:
        """Of a decoder's mask (rows, longest) and that of its encoder (rows, longest there). Of
        sequences of one length, those with the shorter source are first."""
        lengths, sources = mask.sum(dim=1), source.sum(dim=1)
        order = (lengths * (source.shape[1] + 1) + sources).argsort(stable=True)
        return replace(cls.of(mask, order), source=cls.of(source, order))

    @cached_property
    def tokens(self) -> int:
        """Of all sequences."""
        return sum(length * count for length, count in self.runs)

    @property
    def filled(self) -> int:
        """How many places there are behind the sequences."""
        return len(self.places) - self.tokens

    @property
    def longest(self) -> int:
        return max(length for length, _ in self.runs)

    @cached_property
    def within(self) -> list[Group]:
        """For attention of each sequence to itself."""
        return [Group(count, length, length, count * length) for length, count in self.runs]

    @cached_property
    def across(self) -> list[Group]:
        """For attention of each sequence to its source."""
        assert self.source is not None
        sources = [length for length, count in self.source.runs for _ in range(count)]
        groups, start = [], 0
        for length, count in self.runs:
            end = start + count
            while start < end:
                # They ascend within a run.
                until = bisect_right(sources, MOST_PADDING * sources[start], start, end)
                groups.append(Group.of(length, sources[start:until], self.places.device))
                start = until
        return groups

    def chosen(self, wanted: torch.Tensor | None) -> tuple[torch.Tensor, Segments]:
        """Of some tokens, each for itself: where they stand here, and their own layout. They are
        those `wanted` (rows, longest), or the first of each sequence."""
        found = self.ends[:-1].long()
        if wanted is not None:
            known = wanted.flatten()[self.places[: self.tokens]].nonzero()[:, 0]
            found = known if len(known) else found[:1]  # Layers are not made for nothing.
        ends = torch.arange(len(found) + 1, dtype=torch.int32, device=found.device)
        places = _filled_up(found)
        return places, Segments(self.shape, ((1, len(found)),), ends, self.places[places])

    def flat(self, padded: torch.Tensor) -> torch.Tensor:
        """(rows or 1, longest, …) to (1, tokens, …)."""
        whole = padded.expand(self.shape[0], *padded.shape[1:]).flatten(0, 1)
        return whole.index_select(0, self.places).unsqueeze(0)

    def padded(self, flat: torch.Tensor) -> torch.Tensor:
        """(1, tokens, …) to (rows, longest, …), with zeros for padding."""
        rows, longest = self.shape
        whole = flat.new_zeros(rows * longest, *flat.shape[2:])
        places, states = self.places[: self.tokens], flat[0, : self.tokens]
        return whole.index_copy(0, places, states).view(rows, longest, *flat.shape[2:])


def _filled_up(places: torch.Tensor) -> torch.Tensor:
    if places.is_cuda or not torch.is_autocast_enabled("cpu"):
        return places
    return torch.cat([places, places[:1].expand(-len(places) % ROUND)])
