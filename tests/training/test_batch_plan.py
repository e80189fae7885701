from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.batch_plan import BatchPlan, longest_first

lengths = st.lists(st.integers(1, 200), min_size=1, max_size=300).map(np.array)
batch_sizes = st.integers(1, 40)
seeds = st.integers(0, 2**31 - 1)


def padding(lengths: np.ndarray, batches: list[np.ndarray]) -> int:
    return sum(int((lengths[b].max() - lengths[b]).sum()) for b in batches)


@given(lengths, batch_sizes, seeds, st.integers(0, 3))
def test_an_epoch_holds_every_row_once(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int
) -> None:
    plan = BatchPlan(lengths, batch_size, seed)
    first = epoch * plan.steps_per_epoch
    batches = [plan.rows(step) for step in range(first, first + plan.steps_per_epoch)]
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    sizes = sorted(len(batch) for batch in batches)
    assert all(size == batch_size for size in sizes[1:])
    assert sizes[0] == (len(lengths) % batch_size or min(batch_size, len(lengths)))


@given(lengths, batch_sizes, seeds, st.integers(0, 1000), st.integers(0, 1000))
def test_a_step_does_not_depend_on_what_was_asked_before(
    lengths: np.ndarray, batch_size: int, seed: int, step: int, other: int
) -> None:
    walked = BatchPlan(lengths, batch_size, seed)
    walked.rows(other)
    assert np.array_equal(walked.rows(step), BatchPlan(lengths, batch_size, seed).rows(step))


@given(lengths, batch_sizes, seeds, st.integers(0, 50), st.integers(1, 40), st.integers(1, 4))
def test_ranks_and_micro_batches_share_out_a_step_without_loss(
    lengths: np.ndarray, batch_size: int, seed: int, step: int, size: int, ranks: int
) -> None:
    plan = BatchPlan(lengths, batch_size, seed)
    shares = [
        micro
        for rank in range(ranks)
        for micro in plan.micro_batches(step, size, rank=rank, ranks=ranks)
    ]
    assert all(0 < len(micro) <= size for micro in shares)
    assert sorted(np.concatenate(shares)) == sorted(plan.rows(step))


def test_rows_of_like_length_go_together() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=3000)
    plan = BatchPlan(lengths, 32, seed=0)
    grouped = padding(lengths, [plan.rows(step) for step in range(plan.steps_per_epoch)])
    shuffled = np.random.default_rng(1).permutation(3000)
    at_random = padding(lengths, [shuffled[i : i + 32] for i in range(0, 3000, 32)])
    assert grouped < 0.1 * at_random


def test_epochs_and_seeds_differ_and_batches_come_in_no_order_of_length() -> None:
    lengths = np.arange(1, 1001)
    plan = BatchPlan(lengths, 10, seed=0)
    epochs = [[plan.rows(e * 100 + i).tolist() for i in range(100)] for e in range(2)]
    assert epochs[0] != epochs[1]
    assert [sorted(b) for b in sorted(epochs[0])] != [sorted(b) for b in sorted(epochs[1])]
    assert BatchPlan(lengths, 10, seed=1).rows(0).tolist() != epochs[0][0]
    means = np.array([lengths[b].mean() for b in epochs[0]])
    assert 0.35 < float((np.diff(means) > 0).mean()) < 0.65


def test_tokens_to_come_are_those_of_the_steps() -> None:
    lengths = np.random.default_rng(3).integers(1, 90, size=53)
    plan = BatchPlan(lengths, 8, seed=5)
    of_step = [int(lengths[plan.rows(step)].sum()) for step in range(25)]
    for start, end in ((0, 25), (0, 7), (3, 5), (6, 8), (7, 21), (13, 25), (25, 25), (14, 14)):
        assert plan.tokens(start, end) == sum(of_step[start:end]), (start, end)


@given(lengths, batch_sizes, st.none() | st.integers(1, 400))
def test_batches_of_an_evaluation_hold_every_row_once_and_stay_within_bounds(
    lengths: np.ndarray, size: int, tokens: int | None
) -> None:
    batches = longest_first(lengths, size, tokens)
    order = np.concatenate(batches)
    assert sorted(order) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) <= 0).all()
    assert all(0 < len(batch) <= size for batch in batches)
    most = lengths.sum() if tokens is None else tokens
    assert all(len(batch) == 1 or lengths[batch].sum() <= most for batch in batches)
    # None is cut short while the next row would have fitted.
    for batch, following in pairwise(batches):
        assert len(batch) == size or lengths[batch].sum() + lengths[following[0]] > most
