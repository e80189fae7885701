"""Attention by blocks of queries is torch's own: in what it gives, and in every gradient."""

from __future__ import annotations

import copy

import pytest
import torch

from training import attention, blockwise
from training.layout import Group, Segments

HEADS, SIZE = 6, 8
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, and lengths whose scores are kept, that short sequences go beyond."""
    monkeypatch.setattr(blockwise, "BLOCK", 4)
    monkeypatch.setattr(blockwise, "LONGEST_KEPT", 6)


def groups(*runs: tuple[int, int]) -> list[Group]:
    return [Group(count, length, length, count * length) for length, count in runs]


LAYOUTS = {
    "one": groups((3, 2)),
    "several": groups((1, 3), (4, 1), (5, 2), (6, 1), (13, 2)),
}


def states(
    tokens: int, looked_at: int, heads: int, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    """Queries, keys and values, as models give them: views with tokens in the second place."""
    torch.manual_seed(0)
    shapes = (HEADS, tokens, SIZE), *((heads, looked_at, SIZE),) * 2
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]


def result(
    way: object, parts: list[torch.Tensor], layout: list[Group], **named: object
) -> list[torch.Tensor]:
    """What attention gives, and the gradients of all that has one."""
    parts = [part.detach().clone().requires_grad_() for part in parts]
    bias = named.pop("bias", None)
    if isinstance(bias, torch.Tensor):
        bias = bias.detach().clone().requires_grad_()
    out = way(  # type: ignore[operator]
        *(part.transpose(0, 1) for part in parts), layout, scale=0.3, bias=bias, **named
    )
    weights = torch.linspace(-1, 1, out[: sum(g.count * g.queries for g in layout)].numel())
    (out[: sum(g.count * g.queries for g in layout)].float().flatten() * weights).sum().backward()
    gradients = [part.grad for part in parts]
    if isinstance(bias, torch.Tensor):
        gradients.append(bias.grad)
    return [out.detach(), *(g for g in gradients if g is not None)]


def assert_alike(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("heads", [HEADS, 2], ids=["own-keys", "shared-keys"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-ways"])
@pytest.mark.parametrize("biased", [False, True], ids=["", "biased"])
def test_it_is_torchs_own(layout: str, heads: int, causal: bool, biased: bool) -> None:
    of = LAYOUTS[layout]
    tokens = sum(group.whole for group in of)
    bias = torch.randn(HEADS, 13, 13, generator=torch.Generator().manual_seed(1))
    named = {"causal": causal, "bias": bias if biased else None}
    parts = states(tokens, tokens, heads)
    found, expected = (
        result(way, parts, of, **named) for way in (blockwise.attention, attention.by_sdpa)
    )
    assert_alike(found, expected)


def test_sources_of_several_lengths_are_looked_at_without_their_padding() -> None:
    of = [Group.of(5, [3, 6, 4], CPU), Group.of(2, [7], CPU)]
    parts = states(17, 20, 2)
    found, expected = (
        result(way, parts, of, causal=False) for way in (blockwise.attention, attention.by_sdpa)
    )
    assert_alike(found, expected)


def test_what_fills_a_pack_up_has_zeros_and_gives_no_gradient() -> None:
    of = groups((5, 2))
    plain = states(10, 10, HEADS)
    filled = [torch.cat([part, torch.ones(HEADS, 6, SIZE)], dim=1) for part in plain]
    expected = result(blockwise.attention, plain, of, causal=True)
    found = result(blockwise.attention, filled, of, causal=True)
    assert torch.equal(found[0][:10], expected[0])
    assert not found[0][10:].any()
    for mine, theirs in zip(found[1:], expected[1:], strict=True):
        assert torch.equal(mine[:, :10], theirs)
        assert not mine[:, 10:].any()


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_with_dropout_are_those_of_the_same_draw(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against autograd's, through a formula without blocks that drops the same shares."""
    length = 13
    parts = [part.detach().double().requires_grad_() for part in states(length, length, 2)]
    drawn = (torch.rand(HEADS, length, length) > 0.3).double() / 0.7
    blocks = iter(range(0, length, blockwise.BLOCK))

    def the_same(shares: torch.Tensor, p: float) -> torch.Tensor:
        start = next(blocks)
        of_block = drawn[:, start : start + blockwise.BLOCK, : shares.shape[-1]]
        return shares * of_block.reshape(shares.shape)

    monkeypatch.setattr(blockwise, "drop", the_same)
    found = result(blockwise.attention, parts, groups((length, 1)), causal=causal, dropout=0.3)
    copies = [copy.deepcopy(part) for part in parts]
    query, key, value = copies[0], *(p.repeat_interleave(3, dim=0) for p in copies[1:])
    scores = 0.3 * query @ key.mT
    if causal:
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
    out = (scores.softmax(dim=-1) * drawn @ value).transpose(0, 1)
    (out.flatten() * torch.linspace(-1, 1, out.numel())).sum().backward()
    gradients = [part.grad for part in copies]
    assert_alike(found, [out.detach(), *(g for g in gradients if g is not None)])


def test_in_16_bits_it_is_that_of_32() -> None:
    of = LAYOUTS["several"]
    tokens = sum(group.whole for group in of)
    exact = result(blockwise.attention, states(tokens, tokens, 2), of, causal=True)
    parts = states(tokens, tokens, 2, torch.bfloat16)
    half = result(blockwise.attention, parts, of, causal=True)
    for mine, theirs in zip(half, exact, strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), theirs, atol=0.05, rtol=0.05)


def test_of_long_texts_no_scores_are_kept() -> None:
    of = groups((13, 1))
    kept: list[tuple[int, ...]] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result(blockwise.attention, states(13, 13, HEADS), of, causal=True)
    assert kept
    assert max(torch.Size(shape).numel() for shape in kept) == HEADS * 13 * SIZE


def test_the_layouts_groups_are_what_it_takes() -> None:
    segments = Segments.of(torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 1]]))
    parts = states(7, 7, HEADS)
    found, expected = (
        result(way, parts, segments.within, causal=True)
        for way in (blockwise.attention, attention.by_sdpa)
    )
    assert_alike(found, expected)
