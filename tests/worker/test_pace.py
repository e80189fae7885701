"""How long a run has yet to go, by records whose times are made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker.pace import Pace, line

SPEC = {
    "steps_per_epoch": 50,
    "batch_size": 8,
    "valid_rows": 0,
    "eval_every": 50,
    "checkpoint_every": 50,
}


class Played:
    """A run of 100 steps by the rules of its loop, on a clock of its own."""

    def __init__(self, spec: dict[str, Any], **seconds: Any) -> None:
        self.spec = SPEC | spec
        self.seconds = {"evaluating": 0.0, "saving": 0.0, "exporting": 0.0, "first": 0.0} | seconds
        self.clock = 1000.0
        self.pace = Pace(self.spec, None)
        self.told: dict[int, float | None] = {}

    def phase(self, name: str) -> None:
        self.pace.take({"type": "phase", "phase": name, "time": self.clock})
        self.clock += self.seconds.get(name, 0.0)

    def run(self, steps: list[tuple[float, int]], until: int) -> float:
        """Steps are (seconds, tokens). Returns what was truly left after step `until`."""
        left = sum(tokens for _, tokens in steps)
        self.phase("training")
        then = 0.0
        for number, (seconds, tokens) in enumerate(steps, start=1):
            self.clock += seconds + (self.seconds["first"] if number == 1 else 0.0)
            left -= tokens
            self.pace.take(
                {
                    "type": "progress",
                    "time": self.clock,
                    "step": number,
                    "total_steps": len(steps),
                    "step_tokens": tokens,
                    "tokens_left": left,
                }
            )
            self.told[number] = self.pace.seconds_left()
            if number == until:
                then = self.clock
            for kind, every in (("evaluating", "eval_every"), ("saving", "checkpoint_every")):
                due = number % self.spec[every] == 0 or number == len(steps)
                if due and (kind == "saving" or self.spec["valid_rows"]):
                    self.phase(kind)
                    self.phase("training")
        self.phase("exporting")
        return self.clock - then


def test_uniform_steps() -> None:
    played = Played({}, first=3.0)
    left = played.run([(0.5, 64)] * 100, until=20)
    assert left == pytest.approx(40.0)
    # The first step, six times as long as the others, is no measure for them.
    assert played.told[20] == pytest.approx(left)


def test_long_rows_that_come_first_mislead_nobody() -> None:
    """A step costs 0.1 s and 2 ms a token; the first twenty are four times the others' length."""
    steps = [(0.1 + 0.002 * n, n) for n in [400, 440, 380, 420] * 5 + [100, 90, 110, 80] * 20]
    played = Played({})
    left = played.run(steps, until=20)
    assert played.told[20] == pytest.approx(left, rel=0.01)
    mean_of_the_first = sum(seconds for seconds, _ in steps[:20]) / 20 * 80
    assert mean_of_the_first > 2 * left


def test_evaluations_and_checkpoints_to_come_are_counted() -> None:
    spec = {"valid_rows": 80, "eval_every": 10, "checkpoint_every": 25}
    played = Played(spec, evaluating=4.0, saving=3.0)
    left = played.run([(0.5, 64)] * 100, until=40)
    # 60 steps; evaluations at 40, 50, … 100; checkpoints at 50, 75, 100; one more for the end.
    assert left == pytest.approx(30 + 7 * 4 + 3 * 3)
    assert played.told[40] == pytest.approx(left + 3)


def test_one_slow_evaluation_says_nothing_about_the_others() -> None:
    played = Played({"valid_rows": 80, "eval_every": 10, "checkpoint_every": 100}, evaluating=1.0)
    pace = played.pace
    played.phase("training")
    for step in range(1, 41):
        played.clock += 0.5
        left = 64 * (100 - step)
        pace.take({"type": "progress", "time": played.clock, "step": step, "total_steps": 100,
                   "step_tokens": 64, "tokens_left": left})  # fmt: skip
        if step % 10 == 0:
            played.seconds["evaluating"] = 60.0 if step == 20 else 1.0
            played.phase("evaluating")
            played.phase("training")
    assert pace.seconds_left() == pytest.approx(30 + 6 * 1.0, rel=0.01)


def test_a_stall_is_not_taken_for_the_pace() -> None:
    steps = [(0.5, 64)] * 100
    steps[9] = (120.0, 64)
    played = Played({})
    left = played.run(steps, until=20)
    assert played.told[20] == pytest.approx(left, rel=0.5)
    assert played.told[80] == pytest.approx(10.0, rel=0.5)


def test_a_busy_moment_is_not_taken_for_the_pace() -> None:
    """The second step and three in a row, beside something else that the machine had to do."""
    steps = [(0.5, 64)] * 100
    for place in (1, 13, 14, 15):
        steps[place] = (2.0, 64)
    played = Played({}, first=3.0)
    left = played.run(steps, until=24)
    assert played.told[24] == pytest.approx(left, rel=0.15)


def test_a_clock_that_is_set_back_is_not_taken_for_the_pace() -> None:
    steps = [(0.5, 64)] * 100
    steps[9] = (-3600.0, 64)
    played = Played({})
    left = played.run(steps, until=20)
    assert played.told[20] == pytest.approx(left, rel=0.1)


def test_what_was_not_measured_yet_is_taken_from_the_estimate() -> None:
    predicted = {"parts": {"step": 1.0, "evaluation": 6.0, "save": 2.0, "finish": 5.0}}
    spec = SPEC | {"valid_rows": 80}
    pace = Pace(spec, predicted)
    pace.take({"type": "phase", "phase": "training", "time": 0.0})
    for step in range(1, 21):
        pace.take({"type": "progress", "time": step * 0.5, "step": step, "total_steps": 100,
                   "step_tokens": 8, "tokens_left": 800 - 8 * step})  # fmt: skip
    # Steps take half of what was thought, and so do evaluations.
    assert pace.seconds_left() == pytest.approx(40 + 2 * 3.0 + 2 * 2.0 + 5.0)


def test_nothing_is_told_before_the_first_step() -> None:
    pace = Pace(SPEC, None)
    pace.take({"type": "phase", "phase": "training", "time": 0.0})
    assert pace.seconds_left() is None
    assert pace.speed() is None


@pytest.mark.parametrize("seconds", [[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
def test_longer_rows_never_speed_a_step_up(seconds: list[float]) -> None:
    a_step, a_token = line(np.array([1.0, 2.0, 3.0]), np.array(seconds))
    assert (a_step, a_token) == (pytest.approx(np.mean(seconds)), 0.0)
