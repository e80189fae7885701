from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from training import cross_entropy

SIZES: dict[str, Any] = {
    "vocab_size": 90, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


class Largest(TorchDispatchMode):
    """The most elements of a tensor that an operation gave, how many were matrix products, and how
    many rows the logits had."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = self.products = 0
        self.rows: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.products += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        if func == torch.ops.aten._log_softmax.default:
            self.rows.add(len(out))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


def test_of_several_greatest_logits_the_first_is_the_guess() -> None:
    states = torch.eye(3)
    head = torch.tensor([[1.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    for targets, right in (([0, 1, 0], 3), ([1, 2, 1], 0), ([0, 2, 3], 1)):
        _, found = cross_entropy.chunked(states, head, None, torch.tensor(targets))
        assert found == right


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_are_those_of_the_whole_logits(
    monkeypatch: pytest.MonkeyPatch, bias: bool, smoothing: float
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_LOGITS", 7 * 90)
    torch.manual_seed(0)
    parts = [torch.randn(40, 16), torch.randn(90, 16), torch.randn(90) if bias else None]
    targets = torch.randint(0, 90, (40,))
    gradients, sums = [], []
    for chunks in (True, False):
        hidden, weight, offset = (p if p is None else p.clone().requires_grad_() for p in parts)
        assert hidden is not None
        assert weight is not None
        if chunks:
            with Largest() as seen:
                summed, right = cross_entropy.chunked(hidden, weight, offset, targets, smoothing)
                (summed / 3).backward()
            assert seen.elements <= max(7 * 90, weight.numel())
        else:
            logits = functional.linear(hidden, weight, offset)
            summed = functional.cross_entropy(
                logits, targets, reduction="sum", label_smoothing=smoothing
            )
            right = (logits.argmax(-1) == targets).sum()
            (summed / 3).backward()
        sums.append((summed.item(), float(right)))
        gradients.append([p.grad for p in (hidden, weight, offset) if p is not None])
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_frozen_head_takes_no_gradient_and_an_evaluation_none_at_all() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 16, requires_grad=True), torch.randn(90, 16)
    targets = torch.arange(5)
    with Largest() as seen:
        cross_entropy.chunked(hidden, weight, None, targets)[0].backward()
    assert seen.products == 2
    assert hidden.grad is not None
    with torch.no_grad(), Largest() as seen:
        cross_entropy.chunked(hidden, weight.requires_grad_(), None, targets)
    assert seen.products == 1


def test_under_autocast_it_computes_in_half_precision() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 16, requires_grad=True), torch.randn(90, 16)
    targets = torch.arange(50)
    exact, _ = cross_entropy.chunked(hidden, weight, None, targets)
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = cross_entropy.chunked(hidden, weight, None, targets)
    half.backward()
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=1e-2)
    assert half.item() != exact.item()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_rows_that_fill_a_product_up_change_nothing(
    monkeypatch: pytest.MonkeyPatch, smoothing: float
) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_LOGITS", 100 * 90)
    torch.manual_seed(0)
    # The first word is the likeliest where there is no state, as in the rows that fill up.
    parts = [torch.randn(90, 16), torch.randn(90, 16), torch.eye(90)[0] * 5]
    targets = torch.randint(0, 90, (90,))
    found, products = [], []
    for multiple in (1, 64):
        monkeypatch.setattr(cross_entropy, "ROUND", multiple)
        hidden, weight, bias = (part.clone().requires_grad_() for part in parts)
        with torch.autocast("cpu", torch.bfloat16), Largest() as seen:
            summed, right = cross_entropy.chunked(hidden, weight, bias, targets, smoothing)
        summed.backward()
        found.append([summed.detach(), right, *(part.grad for part in (hidden, weight, bias))])
        products.append((seen.rows, seen.products))
    assert products == [({90}, 3), ({64}, 6)]
    for plain, filled in zip(*found, strict=True):
        scale = float(plain.abs().max())
        torch.testing.assert_close(filled, plain, atol=0.01 * scale, rtol=0)


def test_a_head_that_does_more_than_a_matrix_is_told_apart() -> None:
    plain = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES))
    assert cross_entropy.has_plain_head(plain)
    capped = AutoModelForCausalLM.from_config(Gemma2Config(**SIZES, head_dim=8))
    assert not cross_entropy.has_plain_head(capped)
