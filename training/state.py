"""Where a run stands, apart from weights and optimizer: what a checkpoint must bring back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from models.spec import ResolvedSpec
from models.tasks import better

Values = dict[str, float]

CURVE_BINS = 100


@dataclass
class LossCurve:
    """The training loss over the whole run in at most 100 means, whatever the run's length."""

    total_steps: int
    sums: dict[int, float] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)
    newest: int | None = None
    """The last step that was taken in. A step without a loss is not."""

    def add(self, step: int, loss: float) -> None:
        """Take in the loss of optimizer step `step`, counted from 1."""
        self.newest = step
        index = (step - 1) * CURVE_BINS // self.total_steps
        self.sums[index] = self.sums.get(index, 0.0) + loss
        self.steps[index] = self.steps.get(index, 0) + 1

    def points(self) -> list[tuple[int, float]]:
        """(last step of the bin, mean loss) in order."""
        points = []
        for index, total in self.sums.items():
            end = -(-(index + 1) * self.total_steps // CURVE_BINS)
            points.append((min(end, self.newest or end), total / self.steps[index]))
        return points


@dataclass
class RunState:
    """The position is `step`, the number of optimizer steps done: the batch plan does the rest."""

    curve: LossCurve
    micro_batch_size: int
    """As the spec says, or less after the device ran out of memory."""
    micro_batch_tokens: int | None = None
    """As `run.packed` says, or less; None where rows are padded."""
    loss_scale: float = 1.0
    """What the loss is multiplied by in fp16, so that small gradients are not lost."""
    steps_at_scale: int = 0
    """Steps since it was changed."""
    step: int = 0
    empty_steps: int = 0
    """Steps that changed nothing, since their rows have nothing to learn."""
    trained_tokens: int = 0
    metric_points: int = 0
    """Metric records written so far: the metric stream's offset."""
    train: Values = field(default_factory=dict)
    """The values of the newest step."""
    evaluations: list[tuple[int, Values]] = field(default_factory=list)
    best_step: int | None = None
    stale_evaluations: int = 0
    """Evaluations since the best one."""

    @classmethod
    def fresh(cls, spec: ResolvedSpec) -> RunState:
        return cls(LossCurve(spec.total_steps), min(spec.micro_batch_size, spec.batch_size))

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> RunState:
        return cls(**{**saved, "curve": LossCurve(**saved["curve"])})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def evaluated_step(self) -> int:
        """The step of the newest evaluation; 0 before the first."""
        return self.evaluations[-1][0] if self.evaluations else 0

    @property
    def best(self) -> Values:
        """The best evaluation's values; empty before the first."""
        return dict(self.evaluations).get(self.best_step or 0, {})

    def take_evaluation(self, values: Values, metric: str, greater_is_better: bool) -> bool:
        """Take in an evaluation at the present step; whether it is the best so far."""
        best = self.best
        self.evaluations.append((self.step, values))
        if not better(values, best, metric, greater_is_better):
            self.stale_evaluations += 1
            return False
        self.best_step, self.stale_evaluations = self.step, 0
        return True

    def metrics_here(self) -> Values:
        """What is known of the weights at the present step, as `train_…` and `valid_…`."""
        here = self.evaluations[-1][1] if self.evaluated_step == self.step > 0 else {}
        return _prefixed("train", self.train) | _prefixed("valid", here)

    def final_metrics(self) -> Values:
        """The newest training step's values and the best evaluation's."""
        return _prefixed("train", self.train) | _prefixed("valid", self.best)


def _prefixed(split: str, values: Values) -> Values:
    return {f"{split}_{name}": value for name, value in values.items()}
