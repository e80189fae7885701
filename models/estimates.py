"""What a job will take, told before it runs: steps, tokens, memory, seconds with their interval.

A run is made of parts (`Parts`). Each is first reckoned roughly, by the rules below, from the sizes
of model and data; then set right by the runs of this kind that there have been: a part's factor is
the geometric mean of truth by rough reckoning over them. The interval holds nine runs of ten, if
runs differ from each other as those did (docs/estimates.md).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import fmean, median, stdev
from typing import Any

from models.base import Json
from models.parts import Extent, Parts
from models.past_runs import PastRun
from models.sizes import ModelSize
from models.spec import ResolvedSpec

RATE = {"cpu": 4e10, "cuda": 4e13}
"""FLOP/s that training reaches, before there is a run to tell."""
STEP_OVERHEAD = {"cpu": 0.01, "cuda": 0.03}
"""Seconds of a step that do no arithmetic."""
UPDATED_BYTES = {"cpu": 5e9, "cuda": 5e11}
"""Bytes of weights and optimizer that are updated in a second."""
WRITTEN_BYTES = 2e8
"""Bytes a second to disk or storage, hashed and read back."""
READ_ROWS = 5e3
"""Rows that are encoded in a second."""
START_SECONDS, SAVE_SECONDS, FINISH_SECONDS = 2.0, 0.2, 1.0
EVALUATION_SHARE = 1 / 3
"""What an evaluated row costs, in trained ones: forward alone."""
GENERATES = ("translation", "summarization", "automatic-speech-recognition")
GENERATION_SHARE = 5.0
"""The same where texts are written token by token."""
LIBRARIES = {"cpu": 500_000_000, "cuda": 600_000_000}
"""Bytes that torch and transformers hold before there is a model."""
OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2, "rmsprop": 4, "sgd": 4, "adafactor": 1}
"""A weight's."""
ACTIVATION_BYTES = 70
"""Of a token, a layer and a hidden unit, in fp32, for the backward pass: 34 in half precision
(Korthikanti et al., arXiv 2205.05198) without the attention's squares, which are not kept here."""
UNKNOWN_SIGMA, OTHERS_SIGMA, ONE_RUN_SIGMA, LEAST_SIGMA = 1.0, 0.6, 0.3, 0.08
"""Spreads of the logarithm of truth by estimate: with no past run, with those of other models, with
one, and at the least."""
NINE_OF_TEN = 1.645

MEDIA_TOKENS = {"image": 200.0, "audio": 400.0}
"""Of a row whose length in tokens the report does not tell."""
CHARACTERS_A_TOKEN = 4.0
ENCODERS_LIMIT = 512


@dataclass(frozen=True)
class Estimate:
    rough: Parts
    parts: Parts
    seconds: float
    seconds_low: float
    seconds_high: float
    peak_memory_bytes: int
    rough_memory_bytes: int
    trained_tokens: int
    calibrated_by: int
    error: float | None
    """The median of how far those runs' own predictions were off, as a share of the truth."""

    def as_json(self) -> Json:
        """A job's `predicted`."""
        return asdict(self)


def estimate(
    spec: ResolvedSpec, size: ModelSize, row_tokens: float, kind: str, past: list[PastRun]
) -> Estimate:
    """`kind` is the device's: cpu or cuda. `past` are the runs most like this one."""
    rough, extent = _rough(spec, size, row_tokens, kind), Extent.of(spec)
    parts = _set_right(rough, past)
    seconds = extent.seconds(parts)
    wide = math.exp(NINE_OF_TEN * _sigma(spec, past))
    rough_memory = _memory(spec, size, row_tokens, kind)
    errors = [run.error for run in past if run.error is not None]
    return Estimate(
        rough=rough,
        parts=parts,
        seconds=seconds,
        seconds_low=seconds / wide,
        seconds_high=seconds * wide,
        peak_memory_bytes=round(rough_memory * _memory_factor(past)),
        rough_memory_bytes=rough_memory,
        trained_tokens=round(
            row_tokens * spec.train_rows * spec.total_steps / spec.steps_per_epoch
        ),
        calibrated_by=len(past),
        error=median(errors) if errors else None,
    )


def row_tokens(report: Json, modality: str, max_length: int | None, is_generator: bool) -> float:
    """The mean tokens of a row, by the report of its validation: counted where a model was named,
    else by the characters."""
    profile: dict[str, Any] = report.get("profile") or {}
    counted = ((profile.get("tokens") or {}).get("tokens") or {}).get("mean")
    if counted is not None:
        return float(counted)
    if modality in MEDIA_TOKENS:
        return MEDIA_TOKENS[modality]
    told = {**(profile.get("characters") or {}), **(profile.get("items") or {})}
    inputs = [spread["mean"] for name, spread in told.items() if name not in ("label", "id")]
    if not told:
        return float(max_length or ENCODERS_LIMIT) / 2  # Chats, whose lengths nobody has measured.
    limit = max_length or (None if is_generator else ENCODERS_LIMIT)
    tokens: float = max(4.0, sum(inputs) / CHARACTERS_A_TOKEN + 2)
    return min(tokens, limit) if limit else tokens


def _trained(spec: ResolvedSpec, size: ModelSize) -> int:
    """Weights that move."""
    if spec.lora is not None:
        # Two matrices of `rank` by hidden for each of about seven linear layers a block.
        return min(size.parameters, 14 * spec.lora.rank * size.hidden * size.layers)
    if spec.tuning == "freeze":
        return size.parameters // 3
    return size.parameters


def _rough(spec: ResolvedSpec, size: ModelSize, row_tokens: float, kind: str) -> Parts:
    trained = _trained(spec, size)
    # Forward 2 FLOPs a weight and token, backward as much for the inputs and for what is trained.
    flops = (4 * size.parameters + 2 * trained) * row_tokens * spec.batch_size
    state = trained * (4 + OPTIMIZER_BYTES[spec.optimizer])
    step = STEP_OVERHEAD[kind] + flops / RATE[kind] + state / UPDATED_BYTES[kind]
    share = GENERATION_SHARE if spec.task in GENERATES else EVALUATION_SHARE
    weights = 4 * size.parameters
    rows = spec.train_rows + spec.valid_rows
    return Parts(
        start=START_SECONDS + weights / WRITTEN_BYTES + rows / READ_ROWS,
        step=step,
        evaluation=spec.valid_rows * share * (step - STEP_OVERHEAD[kind]) / spec.batch_size
        + STEP_OVERHEAD[kind],
        save=SAVE_SECONDS + (weights + state) / WRITTEN_BYTES,
        finish=FINISH_SECONDS + 2 * weights / WRITTEN_BYTES,
    )


def _memory(spec: ResolvedSpec, size: ModelSize, row_tokens: float, kind: str) -> int:
    """Weights, gradients, optimizer, and what the backward pass needs of one micro-batch."""
    trained = _trained(spec, size)
    copies = 4 + OPTIMIZER_BYTES[spec.optimizer] + (4 if spec.ema_decay is not None else 0)
    tokens = row_tokens * spec.micro_batch_size
    if spec.micro_batch_tokens is not None:
        tokens = min(tokens, max(row_tokens, spec.micro_batch_tokens))
    activations = tokens * size.hidden * size.layers * ACTIVATION_BYTES
    if spec.activation_checkpointing:
        activations /= size.layers
    return round(LIBRARIES[kind] + 4 * size.parameters + copies * trained + activations)


def _set_right(rough: Parts, past: list[PastRun]) -> Parts:
    return Parts(**{name: value * _factor(name, past) for name, value in asdict(rough).items()})


def _factor(part: str, past: list[PastRun]) -> float:
    """Of the runs that had this part; 1 where none had."""
    logs = [
        math.log(run.figures["true"][part] / run.figures["rough"][part])
        for run in past
        if run.figures["true"].get(part) and run.figures["rough"].get(part)
    ]
    return math.exp(fmean(logs)) if logs else 1.0


def _memory_factor(past: list[PastRun]) -> float:
    ratios = [
        run.peak_memory_bytes / run.figures["rough_memory"]
        for run in past
        if run.peak_memory_bytes and run.figures.get("rough_memory")
    ]
    return fmean(ratios) if ratios else 1.0


def _sigma(spec: ResolvedSpec, past: list[PastRun]) -> float:
    """The spread of the logarithm of truth by estimate."""
    if not past:
        return UNKNOWN_SIGMA
    if any(run.model != spec.model or run.tuning != spec.tuning for run in past):
        return OTHERS_SIGMA
    logs = [
        math.log(run.figures["true"]["step"] / run.figures["rough"]["step"])
        for run in past
        if run.figures["true"].get("step")
    ]
    if len(logs) < 2:
        return ONE_RUN_SIGMA
    return max(LEAST_SIGMA, stdev(logs) * math.sqrt(1 + 1 / len(logs)))
