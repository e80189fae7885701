"""A moving average of the weights (EMA), which is evaluated, saved and handed over in their place.

A checkpoint's model is the average; the weights under training lie in its training state. So a
resume finds both to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class MovingAverage:
    """average = decay * average + (1 - decay) * weight after each step, of what is trained."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._weights = [p for p in model.parameters() if p.requires_grad]
        self._decay = decay
        self._average = [p.detach().clone() for p in self._weights]

    def update(self) -> None:
        torch._foreach_lerp_(self._average, [p.detach() for p in self._weights], 1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model's weights are the average within the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> list[torch.Tensor]:
        """The weights under training."""
        return [p.detach() for p in self._weights]

    def restore(self, weights: list[torch.Tensor]) -> None:
        """Take what the model was loaded with as the average, and go on training these weights."""
        with torch.no_grad():
            for average, parameter, saved in zip(
                self._average, self._weights, weights, strict=True
            ):
                average.copy_(parameter)
                parameter.copy_(saved)

    def _swap(self) -> None:
        for place, parameter in enumerate(self._weights):
            parameter.data, self._average[place] = self._average[place], parameter.data
