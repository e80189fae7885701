"""Gradual unfreezing (arXiv 1801.06146, section 3.3): the head learns first, then the layers join
it one by one from the top down.

Who has joined is a function of the step, so there is nothing to lose in a resume. The optimizer
knows all of them from the start: it passes over parameters without a gradient, which keeps them
from moment estimates and weight decay, and the schedule is one for all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from torch import nn

from models.spec import ResolvedSpec
from training.layers import depths


class Unfreezing:
    """The groups that join: what lies in one depth, less what is frozen for good."""

    def __init__(self, model: nn.Module, spec: ResolvedSpec, drawn: Collection[str]) -> None:
        """What the base model lacked (`drawn`) learns from the start, wherever it lies."""
        assert spec.freeze is not None
        assert spec.freeze.gradual is not None
        self.interval = max(1, round(spec.freeze.gradual * spec.steps_per_epoch))
        """Steps from one group to the next."""
        of_depth = depths(model)
        groups: dict[int, list[nn.Parameter]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups[0 if name in drawn else of_depth[name]].append(parameter)
        self.groups = [groups[depth] for depth in sorted(groups)]

    def apply(self, step: int) -> None:
        """Let those learn who have joined by this step, counted from 0."""
        for place, group in enumerate(self.groups):
            for parameter in group:
                parameter.requires_grad_(place * self.interval <= step)

    def told(self, total_steps: int) -> str:
        last = (len(self.groups) - 1) * self.interval
        text = (
            f"{len(self.groups)} groups of layers learn from the head down, "
            f"another one every {self.interval} steps"
        )
        if last < total_steps:
            return f"{text}: all of them from step {last + 1} on."
        never = len(self.groups) - 1 - (total_steps - 1) // self.interval
        return f"{text}: the lowest {never} never, for the run ends at step {total_steps}."
