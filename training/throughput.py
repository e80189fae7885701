"""How much of the device a run uses: model FLOPs utilisation (MFU, arXiv 2204.02311, appendix B).

Counted is the arithmetic that the model needs for the tokens that are no padding, not what was
spent on padding or on running layers twice. A multiplication and its addition are two.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel
from torch import nn

from training import tail
from training.layers import stacks

GPU_PEAKS: dict[str, float] = {
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10G": 70e12, "A10": 125e12, "T4": 65e12,
    "RTX 4090": 165e12, "RTX 3090": 71e12, "V100": 125e12,
}  # fmt: skip
"""FLOP/s of dense products in 16 bits with sums in fp32, by the first name that a device's name
holds; from the makers' data sheets."""
MEASURED_SIZE, MEASURED_TIMES = 1024, 50
LEAST_SECONDS = 10.0
"""Of training before anything is told: less is mostly warm-up."""


@dataclass
class Work:
    """What some rows hold, without padding."""

    tokens: float = 0.0
    pairs: float = 0.0
    """The squares of the rows' lengths."""
    targets: float = 0.0

    def add(self, lengths: npt.NDArray[np.integer], targets: int) -> None:
        rows = lengths.astype(np.float64)
        self.tokens += float(rows.sum())
        self.pairs += float((rows * rows).sum())
        self.targets += targets


@dataclass(frozen=True)
class Cost:
    """FLOPs of one training step's parts, for a text model with one stack of layers."""

    of_token: int
    """The layers' matrices."""
    of_pair: int
    """Attention, by the square of a row's length."""
    of_target: int
    """A vocabulary's head, for each learnt position."""

    @classmethod
    def of(cls, model: Any) -> Cost | None:
        """None for a model whose work is not told by its rows' lengths alone."""
        inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        found = stacks(inner.base_model)
        size = getattr(inner.config, "hidden_size", None)
        if inner.main_input_name != "input_ids" or len(found) != 1 or size is None:
            return None
        if inner.config.is_encoder_decoder:
            return None
        of_token = _of_matrices(found[0][1])
        # Two products, forward and twice backward; a causal model needs half of each.
        causal = any(getattr(module, "is_causal", False) for module in found[0][1].modules())
        of_pair = 2 * 2 * 3 * len(found[0][1]) * int(size) // (2 if causal else 1)
        head = inner.get_output_embeddings()
        weight = None if head is None else getattr(head, "weight", None)
        of_target = 0 if weight is None else weight.numel() * (6 if weight.requires_grad else 4)
        if (stack := tail.of(model)) is not None and stack.narrowed:
            # What is told of a text, or of a token, is told by one token's state.
            of_token -= _of_matrices(stack.tail)
            of_target += _of_matrices(stack.tail)
        return cls(of_token, of_pair, of_target)

    def flops(self, work: Work) -> float:
        return (
            self.of_token * work.tokens + self.of_pair * work.pairs + self.of_target * work.targets
        )


def _of_matrices(modules: Iterable[nn.Module]) -> int:
    """FLOPs of a token: forward, and backward to the inputs of every matrix and to the weights that
    are trained."""
    return sum(
        p.numel() * (6 if p.requires_grad else 4)
        for module in modules
        for p in module.parameters()
        if p.ndim > 1
    )


@dataclass
class Throughput:
    """The steps of this attempt."""

    seconds: float = 0.0
    tokens: int = 0
    work: Work = field(default_factory=Work)

    def add(
        self, lengths: npt.NDArray[np.integer], tokens: int, targets: int, seconds: float
    ) -> None:
        self.seconds += seconds
        self.tokens += tokens
        self.work.add(lengths, targets)

    def told(
        self, model: Any, device: torch.device, half: torch.dtype | None, ranks: int = 1
    ) -> tuple[str, dict[str, float]]:
        """A sentence for the log, and the numbers in it; ("", {}) after too little. `model` is as
        the newest batch has left it."""
        if self.seconds < LEAST_SECONDS:
            return "", {}
        values = {"tokens_per_second": self.tokens / self.seconds}
        text = f"Trained at {values['tokens_per_second']:,.0f} tokens a second, without padding"
        cost = Cost.of(model)
        peak = peak_flops(device, half) if cost else None
        if cost is not None and peak is not None:
            peak *= ranks
            speed = cost.flops(self.work) / self.seconds
            values |= {"flops_per_second": speed, "peak_flops_per_second": peak}
            values["utilisation"] = speed / peak
            text += f": {values['utilisation']:.0%} of the device's {peak:.3g} FLOP/s"
        return f"{text}.", values


def peak_flops(device: torch.device, half: torch.dtype | None) -> float | None:
    """FLOP/s of the device: of a GPU by the table, in 16 bits whatever the run computes in; None
    where the table has it not. Of a CPU what the product of two matrices reaches now."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peak for part, peak in GPU_PEAKS.items() if part in name), None)
    left = torch.ones(MEASURED_SIZE, MEASURED_SIZE, dtype=half or torch.float32)
    best = float("inf")
    for _ in range(MEASURED_TIMES):
        started = time.perf_counter()
        torch.mm(left, left)
        best = min(best, time.perf_counter() - started)
    return 2 * MEASURED_SIZE**3 / best
