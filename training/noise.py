"""Noise in training texts: tokens hidden, left out or swapped with a neighbour.

What is drawn for a row depends on (seed, epoch, the row's number) alone, so that neither a resume
nor another split of a step changes it (trap 4).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from models.spec import ResolvedSpec
from training.sequences import Sequences

NOISE = 1
"""Beside the key of a row, so that its noise is not drawn like its masks."""
Tokens = npt.NDArray[np.int32]


def wanted(spec: ResolvedSpec) -> bool:
    return bool(spec.token_dropout or spec.token_deletion or spec.token_swap)


def noisy(
    examples: Sequences,
    rows: npt.NDArray[np.int64],
    spec: ResolvedSpec,
    epoch: int,
    *,
    special: Collection[int],
    hidden_by: int,
) -> Sequences:
    """These rows in order, each as it stands in this epoch; the originals are not touched.

    Special tokens stay, and of each row one token at least. `hidden_by` stands for what is hidden.
    """
    kept = np.array(sorted(special), dtype=np.int32)
    chosen: dict[str, list[npt.NDArray[np.int32]]] = {name: [] for name in examples.tokens}
    for row in rows:
        here = slice(examples.starts[examples.first[row]], examples.starts[examples.first[row + 1]])
        tokens = examples.tokens["input_ids"][here]
        generator = np.random.default_rng([spec.seed, epoch, int(examples.ids[row]), NOISE])
        order = _order(tokens, kept, spec, generator)
        for name, values in examples.tokens.items():
            chosen[name].append(values[here][order])
        tokens = chosen["input_ids"][-1]
        hide = generator.random(len(tokens)) < spec.token_dropout
        chosen["input_ids"][-1] = np.where(hide & ~np.isin(tokens, kept), hidden_by, tokens)
    lengths = [len(values) for values in chosen["input_ids"]]
    return Sequences(
        ids=examples.ids[rows],
        first=np.arange(len(rows) + 1),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        tokens={name: np.concatenate(values) for name, values in chosen.items()},
        targets=None if examples.targets is None else examples.targets[rows],
        references=[examples.references[row] for row in rows] if examples.references else [],
    )


def _order(
    tokens: Tokens, special: Tokens, spec: ResolvedSpec, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Which of a row's tokens stay, and in which order."""
    order = np.arange(len(tokens))
    free = ~np.isin(tokens, special)
    swap = generator.random(len(tokens)) < spec.token_swap
    for place in np.flatnonzero(swap[:-1] & free[:-1] & free[1:]):
        order[[place, place + 1]] = order[[place + 1, place]]
    chance = np.where(free, generator.random(len(tokens)), 1.0)
    if spec.token_deletion and free.any():
        # The one that is least likely to go stays in any case.
        chance[np.flatnonzero(free)[chance[free].argmax()]] = 1.0
    return order[chance[order] >= spec.token_deletion]
