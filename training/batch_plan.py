"""Which rows make up which optimizer step: a pure function, so a position is one integer.

Rows of like length go together, which saves most of the padding. An epoch is shuffled, cut into
windows of some batches, each window sorted by length and cut into batches, and the batches are
shuffled. (The scheme is transformers' `group_by_length`, with the batches shuffled as well.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

WINDOW_BATCHES = 50
MIN_WINDOWS = 4


class BatchPlan:
    """The plan of a run over rows 0..n-1 with these lengths.

    The rows of a step depend on (lengths, batch_size, seed, step) and on nothing else; the number
    of ranks only decides how they are dealt out. Every epoch holds each row once, and its one
    short batch, if any, is among the others.
    """

    def __init__(self, lengths: npt.NDArray[np.integer], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch: tuple[int, list[Rows]] | None = None
        self.steps_per_epoch = -(-len(lengths) // batch_size)

    def rows(self, step: int) -> Rows:
        """The rows of this optimizer step, counted from 0 over all epochs."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._batches(epoch)
        return self._epoch[1][index]

    def tokens(self, start: int, end: int) -> int:
        """The lengths of all rows of the steps from `start` up to, not including, `end`."""
        first, last = start // self.steps_per_epoch, end // self.steps_per_epoch
        if first == last:
            return self._tokens_of(first, start, end)
        whole = int(self._lengths.sum()) * (last - first - 1)
        boundary = (first + 1) * self.steps_per_epoch
        head = self._tokens_of(first, start, boundary)
        return head + whole + self._tokens_of(last, last * self.steps_per_epoch, end)

    def _tokens_of(self, epoch: int, start: int, end: int) -> int:
        """The same for steps of one epoch."""
        if start == end:
            return 0
        offset = epoch * self.steps_per_epoch
        batches = self._batches(epoch)[start - offset : end - offset]
        return sum(int(self._lengths[rows].sum()) for rows in batches)

    def micro_batches(
        self, step: int, size: int, tokens: int | None = None, *, rank: int = 0, ranks: int = 1
    ) -> list[Rows]:
        """This rank's share of a step, in parts of at most `size` rows, shorter rows first.

        Without `tokens` the rows of a part are of like length, since they are padded. With it they
        stand one behind the other and have at most so many tokens together, but for a row that
        has more by itself. Fewer rows than ranks leave some shares empty.
        """
        rows = self.rows(step)
        share = rows[np.argsort(self._lengths[rows], kind="stable")][rank::ranks]
        if tokens is not None:
            return [share[part] for part in best_fit(self._lengths[share], size, tokens)]
        return [share[start : start + size] for start in range(0, len(share), size)]

    def shares(self, step: int, size: int, tokens: int | None, ranks: int) -> list[list[Rows]]:
        """The micro-batches of every rank."""
        return [
            self.micro_batches(step, size, tokens, rank=rank, ranks=ranks) for rank in range(ranks)
        ]

    def _batches(self, epoch: int) -> list[Rows]:
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(len(self._lengths))
        # A window over all of a small data set would put the same rows together in every epoch.
        window = min(WINDOW_BATCHES, self.steps_per_epoch // MIN_WINDOWS) or 1
        batches: list[Rows] = []
        for start in range(0, len(order), window * self._batch_size):
            rows = order[start : start + window * self._batch_size]
            rows = rows[np.argsort(self._lengths[rows], kind="stable")]
            batches += [
                rows[i : i + self._batch_size] for i in range(0, len(rows), self._batch_size)
            ]
        return [batches[i] for i in generator.permutation(len(batches))]


def longest_first(
    lengths: npt.NDArray[np.integer], size: int, tokens: int | None = None
) -> list[Rows]:
    """All rows once, in batches of at most `size` rows of like length, and as in `micro_batches` of
    at most `tokens` in all. What does not fit into memory shows at once."""
    order = np.argsort(-lengths, kind="stable")
    starts, total = [0], 0
    for place, length in enumerate(lengths[order].tolist()):
        rows = place - starts[-1]
        if rows == size or (rows and tokens is not None and total + length > tokens):
            starts.append(place)
            total = 0
        total += length
    return np.split(order, starts[1:])


def best_fit(lengths: npt.NDArray[np.integer], size: int, tokens: int) -> list[Rows]:
    """Places in `lengths`, which ascend, in few packs of at most `size` rows and `tokens` in all.

    Best fit decreasing: the longest row left goes where the least room would be left after it. At
    most 11/9 of the best possible number of packs, and a pack more (Johnson 1973), where `size`
    does not bind.
    """
    packs: list[list[int]] = []
    room: list[int] = []
    for place in range(len(lengths) - 1, -1, -1):
        length = int(lengths[place])
        fitting = [(left, n) for n, left in enumerate(room)
                   if left >= length and len(packs[n]) < size]  # fmt: skip
        if fitting:
            _, pack = min(fitting)
        else:
            pack = len(packs)
            packs.append([])
            room.append(tokens)
        packs[pack].append(place)
        room[pack] -= length
    return [np.array(pack[::-1], dtype=np.int64) for pack in packs]
