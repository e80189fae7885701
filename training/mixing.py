"""Images mixed two by two, and the loss of what is mixed: mixup and cut-mix.

An image's partner is any of the training file, so that the pair depends on (seed, epoch, the row's
number) alone, and not on which rows share a micro-batch (trap 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from models.augmentation import Augmentation

MIX = 3
"""Beside the key of a row, so that its partner is not drawn like anything else of it."""


@dataclass(frozen=True)
class Mix:
    """What the rows of a batch are made of beside themselves."""

    targets: torch.Tensor
    """The partners' classes (rows,)."""
    shares: torch.Tensor
    """What of a row is its own (rows,), fp32."""

    def to(self, device: torch.device) -> Mix:
        return Mix(self.targets.to(device), self.shares.to(device))

    def of(self, own: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
        """What belongs to the rows and what to their partners, by their shares."""
        return self.shares * own + (1 - self.shares) * partners


@dataclass(frozen=True)
class Plan:
    """What is mixed how."""

    partner: int
    """Its place in the file."""
    share: float
    """What stays of the row itself."""
    window: tuple[float, float] | None
    """Where the middle of the part lies that cut-mix replaces, as shares of height and width; None
    for mixup."""


def wanted(asked: Augmentation) -> bool:
    return bool(asked.mixup or asked.cutmix)


def plan(asked: Augmentation, rows: int, key: list[int]) -> Plan:
    """The mix of the row with this key, of a file with so many rows."""
    generator = np.random.default_rng([*key, MIX])
    partner = int(generator.integers(rows))
    cuts = bool(asked.cutmix) and (not asked.mixup or generator.random() < 0.5)
    alpha = asked.cutmix if cuts else asked.mixup
    share = float(generator.beta(alpha, alpha))
    y, x = generator.random(2).tolist()
    return Plan(partner, share, (y, x) if cuts else None)


def mixed(
    pixels: torch.Tensor, partners: torch.Tensor, plans: list[Plan]
) -> tuple[torch.Tensor, npt.NDArray[np.float32]]:
    """Images (rows, channels, height, width) with their partners in them, and what of each is its
    own: of cut-mix that is counted in pixels."""
    made, shares = pixels.clone(), np.empty(len(plans), dtype=np.float32)
    height, width = pixels.shape[-2:]
    for row, plan_ in enumerate(plans):
        shares[row] = plan_.share
        if plan_.window is None:
            made[row].lerp_(partners[row], 1 - plan_.share)
            continue
        side = math.sqrt(1 - plan_.share)
        rows = _span(plan_.window[0], side, height)
        columns = _span(plan_.window[1], side, width)
        made[row, :, rows, columns] = partners[row, :, rows, columns]
        replaced = (rows.stop - rows.start) * (columns.stop - columns.start)
        shares[row] = 1 - replaced / (height * width)
    return made, shares


def _span(middle: float, side: float, whole: int) -> slice:
    start, end = ((middle + sign * side / 2) * whole for sign in (-1, 1))
    return slice(max(0, round(start)), min(whole, round(end)))
