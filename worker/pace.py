"""How fast a run goes, and how long it has yet to go, from its trainer's records.

A run's time is steps, evaluations, checkpoints and an end. Each kind is measured by itself, so that
a slow evaluation says nothing about the steps, and each that is yet to come is counted. A step's
time is a line over its tokens, fitted to the recent steps (the regression estimator, Cochran,
Sampling Techniques, 7): the trainer tells the tokens of all steps to come, so that long rows which
happened to come first mislead nobody.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Any

import numpy as np

from models.base import Json

LEAST_STEPS, MOST_STEPS = 50, 1000
"""The window of recent steps: an epoch, within these bounds."""
RECENT = 5
"""Evaluations and checkpoints that are looked at: their median, which one slow one leaves alone."""
LEAST_SECONDS = 1e-6
"""Of a step: a clock that is set back shows less than none."""
FIRST_STEPS = 2
"""They allocate and fill caches, beside the next trainer that starts; no others are like them."""
STALL, SLOW = 10.0, 2.0
"""A step counts at most so many times the median, and so many times what one with its tokens mostly
takes: a machine that slept, or was busy with something else, is not so each time."""
EVALUATION_SHARE = 1 / 3
"""What a row costs that is evaluated, in rows that are trained on, before it was measured: forward
alone, without backward."""


class Pace:
    """One attempt's. `take` every record of type phase or progress, in order."""

    def __init__(self, resolved: Json, predicted: Json | None) -> None:
        """`predicted` is what the job was thought to take (`models/estimates.py`)."""
        self._spec = resolved
        self._expected: dict[str, float] = (predicted or {}).get("parts", {})
        window = min(MOST_STEPS, max(LEAST_STEPS, resolved["steps_per_epoch"]))
        self._steps: deque[tuple[float, float]] = deque(maxlen=window)
        """(tokens, seconds), between the records of two steps with nothing between them."""
        self._spans: dict[str, deque[float]] = {
            "evaluating": deque(maxlen=RECENT),
            "saving": deque(maxlen=RECENT),
        }
        self._done: dict[str, int] = {}
        """The step whose evaluation, or whose checkpoint, is over."""
        self._first: list[tuple[float, float]] = []
        self._phase: tuple[str, float] | None = None
        self._mark: float | None = None
        self._progress: dict[str, Any] | None = None

    def take(self, record: dict[str, Any]) -> None:
        if record["type"] == "phase":
            self._enter(record["phase"], record["time"])
        else:
            self._step(record)

    def _enter(self, phase: str, moment: float) -> None:
        before, self._phase = self._phase, (phase, moment)
        if before is not None and before[0] in self._spans:
            self._spans[before[0]].append(moment - before[1])
            if self._progress is not None:
                self._done[before[0]] = self._progress["step"]
        self._mark = moment

    def _step(self, record: dict[str, Any]) -> None:
        if self._mark is not None and "step_tokens" in record:
            seconds = max(LEAST_SECONDS, record["time"] - self._mark)
            measured = float(record["step_tokens"]), seconds
            few = len(self._first) < FIRST_STEPS
            (self._first if few else self._steps).append(measured)
        self._mark, self._progress = record["time"], record

    def _measured(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
        """Tokens and seconds of the recent steps; None before there is one."""
        steps = list(self._steps) or self._first
        if not steps:
            return None
        tokens, seconds = np.array(steps).T
        seconds = np.minimum(seconds, STALL * np.median(seconds))
        a_step, a_token = line(tokens, seconds)
        by_tokens = a_step + a_token * tokens
        mostly = by_tokens * np.median(seconds / by_tokens)
        return tokens, np.minimum(seconds, SLOW * mostly)

    def step_seconds(self) -> float | None:
        """The mean of the recent steps."""
        measured = self._measured()
        return float(measured[1].mean()) if measured else None

    def seconds_left(self) -> float | None:
        """From the newest record to the end of the job; None before the first step."""
        measured = self._measured()
        if measured is None or self._progress is None:
            return None
        tokens, seconds = measured
        step, total = self._progress["step"], self._progress["total_steps"]
        a_step, a_token = line(tokens, seconds)
        left = a_step * (total - step) + a_token * self._progress["tokens_left"]
        mean = float(seconds.mean())
        left += self._evaluation(mean) * self._left("evaluating", step, total)
        left += self._save() * self._left("saving", step, total)
        return float(left + self._expected.get("finish", self._save()))

    def _left(self, kind: str, step: int, total: int) -> int:
        """Evaluations, or checkpoints, that are yet to come: every N steps and at the end."""
        name = {"evaluating": "eval_every", "saving": "checkpoint_every"}[kind]
        if kind == "evaluating" and not self._spec["valid_rows"]:
            return 0
        every = self._spec[name]
        ahead = total // every - step // every + (total % every != 0 and step < total)
        is_due = step > 0 and (step % every == 0 or step == total)
        return int(ahead + (is_due and self._done.get(kind) != step))

    def _evaluation(self, step_seconds: float) -> float:
        """Seconds of one."""
        if self._spans["evaluating"]:
            return float(median(self._spans["evaluating"]))
        if "evaluation" in self._expected and self._expected.get("step"):
            # As many steps long as it was thought to be.
            return self._expected["evaluation"] * step_seconds / self._expected["step"]
        rows: float = self._spec["valid_rows"] / self._spec["batch_size"]
        return rows * step_seconds * EVALUATION_SHARE

    def _save(self) -> float:
        if self._spans["saving"]:
            return float(median(self._spans["saving"]))
        return self._expected.get("save", 0.0)

    def speed(self) -> Json | None:
        """Of the recent steps, without evaluations and checkpoints; None before the first one."""
        measured = self._measured()
        if measured is None:
            return None
        tokens, seconds = measured
        each = float(seconds.mean())
        return {
            "steps_per_second": 1 / each,
            "samples_per_second": self._spec["batch_size"] / each,
            "tokens_per_second": float(tokens.mean()) / each,
        }

    def parts(self, ended: float) -> dict[str, float]:
        """The parts of this run in seconds, as an estimate names them, as far as it had them. It
        ended at `ended`, by the clock of the records."""
        told: dict[str, float] = {}
        if self._phase is not None and self._phase[0] == "exporting":
            told["finish"] = ended - self._phase[1]
        if (step := self.step_seconds()) is not None:
            told["step"] = step
        for name, kind in (("evaluation", "evaluating"), ("save", "saving")):
            if self._spans[kind]:
                told[name] = median(self._spans[kind])
        return told


def line(tokens: np.ndarray[Any, Any], seconds: np.ndarray[Any, Any]) -> tuple[float, float]:
    """(seconds a step, seconds a token) of the least squares' line through these steps, neither
    below zero."""
    mean_tokens, mean_seconds = float(tokens.mean()), float(seconds.mean())
    spread = float(((tokens - mean_tokens) ** 2).mean())
    if not spread or not mean_tokens:
        return mean_seconds, 0.0
    slope = float(((tokens - mean_tokens) * (seconds - mean_seconds)).mean()) / spread
    slope = min(max(slope, 0.0), mean_seconds / mean_tokens)
    return mean_seconds - slope * mean_tokens, slope
