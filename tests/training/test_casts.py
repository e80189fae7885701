"""Inputs in 16 bits are made once for all layers that read them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.training.test_packing import made, padded, rows
from training import casts


class Reads(nn.Module):
    """Three layers that read one input, and one that reads what is made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.last = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(sum(layer(x) for layer in self.first).float())  # type: ignore[union-attr]


def both() -> list[nn.Module]:
    torch.manual_seed(0)
    plain = Reads()
    shared = copy.deepcopy(plain)
    casts.install(shared)
    return [plain, shared]


def test_what_several_layers_read_is_turned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, torch.dtype]] = []
    linear = functional.linear

    def watched(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append((id(x), x.dtype))
        return linear(x, *rest)

    _, shared = both()
    monkeypatch.setattr(functional, "linear", watched)
    with torch.autocast("cpu", torch.bfloat16):
        shared(torch.randn(5, 8))
    assert {dtype for _, dtype in seen} == {torch.bfloat16}
    assert len({place for place, _ in seen[:3]}) == 1
    assert len({place for place, _ in seen}) == 2


def test_the_bits_are_autocasts_and_gradients_its_but_for_rounding() -> None:
    x = torch.randn(5, 8)
    found = []
    for model in both():
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = model(given)
        out.float().square().sum().backward()
        found.append([out, given.grad, *(p.grad for p in model.parameters())])
    assert torch.equal(found[0][0], found[1][0])
    for plain, shared in zip(*found, strict=True):
        scale = float(plain.detach().abs().max())
        torch.testing.assert_close(plain, shared, atol=0.01 * scale, rtol=0)


def test_an_input_that_was_changed_in_its_place_is_turned_again() -> None:
    inputs, x = casts.Inputs(), torch.ones(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert inputs.turned(x).sum() == 3
        x += 1
        assert inputs.turned(x).sum() == 6


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_without_autocast_nothing_changes(name: str) -> None:
    plain = made(name)
    shared = copy.deepcopy(plain)
    casts.install(shared)
    batch = padded(rows())
    assert torch.equal(plain(**batch).logits, shared(**batch).logits)
