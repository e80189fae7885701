"""What a run is made of: a start, steps, evaluations, checkpoints, an end."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.spec import ResolvedSpec


@dataclass(frozen=True)
class Parts:
    """Seconds of one of each."""

    start: float
    step: float
    evaluation: float
    save: float
    finish: float


@dataclass(frozen=True)
class Extent:
    """How often each part comes."""

    steps: int
    evaluations: int
    saves: int

    @classmethod
    def of(cls, spec: ResolvedSpec) -> Extent:
        evaluations = math.ceil(spec.total_steps / spec.eval_every) if spec.valid_rows else 0
        return cls(
            spec.total_steps, evaluations, math.ceil(spec.total_steps / spec.checkpoint_every)
        )

    def seconds(self, parts: Parts) -> float:
        return (
            parts.start
            + self.steps * parts.step
            + self.evaluations * parts.evaluation
            + self.saves * parts.save
            + parts.finish
        )
