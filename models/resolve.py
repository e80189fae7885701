"""From what was asked to what is run: every default filled in, by rules stated here.

Pure functions of the request and of what validation found in the data, so that `job.resolved`
says before the first step what the run will do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from core.errors import InvalidRequest
from models import effect
from models.effect import UNPAIRED
from models.optimisation import Optimisation
from models.spec import Hyperparameters, JobRequest, Lora, PreferenceLoss, ResolvedSpec
from models.tasks import default_metric

BASE_LEARNING_RATE = {"full": 5e-5, "freeze": 5e-5, "lora": 2e-4, "scratch": 5e-4}
"""By the way of tuning: the fewer weights move, the farther they may. `learning_rate_multiplier`
scales it."""
WITH_CHATS = ("text-generation", "preference")
LONGEST_UNSTATED = 512
"""Tokens assumed of a row when no `max_length` is given, for the bound on a job's size."""


@dataclass(frozen=True)
class DataFacts:
    """What validation found out about a job's data."""

    task: str
    train_rows: int
    valid_rows: int
    labels: list[str]
    train_sha256: str
    valid_sha256: str | None
    shape: str = ""

    @classmethod
    def of(cls, task: str, train: dict[str, Any], valid: dict[str, Any] | None) -> DataFacts:
        """By a validation's `training` and `validation`."""
        return cls(
            task=task,
            train_rows=train["rows"],
            valid_rows=valid["rows"] if valid else 0,
            labels=train["labels"],
            train_sha256=train["sha256"],
            valid_sha256=valid["sha256"] if valid else None,
            shape=train["shape"],
        )


def auto_epochs(rows: int) -> int:
    """3 epochs, and more on small data, so that about 2,000 rows are seen; at most 10."""
    return max(3, min(10, math.ceil(2000 / rows)))


def auto_batch_size(rows: int) -> int:
    """The power of two that makes about 50 steps an epoch, between 4 and 32."""
    return max(4, min(32, 1 << int(math.log2(max(rows / 50, 1)))))


def resolve(
    request: JobRequest,
    facts: DataFacts,
    *,
    model: str,
    model_revision: str | None,
    from_checkpoint: str | None = None,
    seed: int,
    max_job_tokens: int,
    day: str | None = None,
) -> ResolvedSpec:
    """Fill in every default. `day` is the one that the job was made, as ISO 8601 has it. Raises
    InvalidRequest where the parts don't fit together."""
    asked = request.chosen_hyperparameters()
    rows = facts.train_rows
    batch_size = min(
        rows, auto_batch_size(rows) if asked.batch_size == "auto" else asked.batch_size
    )
    steps_per_epoch = math.ceil(rows / batch_size)
    total_steps, n_epochs = _extent(asked, rows, steps_per_epoch)
    _check_size(asked, total_steps * batch_size, max_job_tokens)

    effect.check(asked, facts.task, facts.shape)
    effect.check_validation(asked, validates=bool(facts.valid_rows))
    multiplier = 1.0 if asked.learning_rate_multiplier == "auto" else asked.learning_rate_multiplier
    interval = max(1, min(steps_per_epoch, 500, total_steps))
    metric, greater = ("loss", False)
    if facts.valid_rows:
        metric, greater = default_metric(facts.task, facts.shape)
    return ResolvedSpec(
        task=facts.task,
        shape=facts.shape,
        model=model,
        model_revision=model_revision,
        from_checkpoint=from_checkpoint,
        tuning=request.tuning,
        lora=(request.lora or Lora()) if request.tuning == "lora" else None,
        freeze=request.freeze,
        seed=seed,
        labels=facts.labels,
        train_rows=rows,
        valid_rows=facts.valid_rows,
        train_sha256=facts.train_sha256,
        valid_sha256=facts.valid_sha256,
        skip_invalid=request.skip_invalid or 0.0,
        cleaning=request.cleaning,
        day=day if facts.task in WITH_CHATS else None,
        n_epochs=n_epochs,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        micro_batch_size=min(asked.micro_batch_size or batch_size, batch_size),
        learning_rate=asked.learning_rate or BASE_LEARNING_RATE[request.tuning] * multiplier,
        # The rate of a warm-up's first step is 0: a run of one step would learn nothing.
        warmup_steps=min(math.ceil(asked.warmup_ratio * total_steps), total_steps - 1),
        weight_decay=asked.weight_decay,
        adam_beta1=asked.adam_beta1,
        adam_beta2=asked.adam_beta2,
        adam_epsilon=asked.adam_epsilon,
        max_grad_norm=asked.max_grad_norm,
        max_length=asked.max_length,
        eval_every=asked.eval_every or interval,
        checkpoint_every=asked.checkpoint_every or interval,
        early_stopping_patience=asked.early_stopping_patience,
        beta=_beta(asked, facts.task),
        preference_loss=_preference_loss(asked, facts),
        **_optimisation(asked, facts),
        metric=metric,
        greater_is_better=greater,
    )


def _optimisation(asked: Hyperparameters, facts: DataFacts) -> dict[str, Any]:
    """What is taken as it was asked for."""
    weights = asked.class_weights
    if isinstance(weights, dict) and set(weights) != set(facts.labels):
        raise InvalidRequest(
            "`class_weights` must name the labels of the data, each once: "
            f"{', '.join(facts.labels[:20])}.",
            param="class_weights",
            code="invalid_value",
        )
    return {name: getattr(asked, name) for name in Optimisation.model_fields}


def _beta(asked: Hyperparameters, task: str) -> float | None:
    if task != "preference":
        return None
    return 0.1 if asked.beta in (None, "auto") else float(asked.beta)


def _preference_loss(asked: Hyperparameters, facts: DataFacts) -> PreferenceLoss | None:
    """DPO for rows with two answers, KTO for rows with one."""
    if facts.task != "preference":
        return None
    unpaired = facts.shape == UNPAIRED
    return asked.preference_loss or ("kto" if unpaired else "dpo")


def _extent(asked: Hyperparameters, rows: int, steps_per_epoch: int) -> tuple[int, int]:
    """(optimizer steps in all, epochs begun): `max_steps` rules where both are given."""
    if asked.max_steps is not None:
        if asked.n_epochs != "auto":
            return min(asked.max_steps, asked.n_epochs * steps_per_epoch), asked.n_epochs
        return asked.max_steps, math.ceil(asked.max_steps / steps_per_epoch)
    n_epochs = auto_epochs(rows) if asked.n_epochs == "auto" else asked.n_epochs
    return n_epochs * steps_per_epoch, n_epochs


def _check_size(asked: Hyperparameters, samples: int, max_job_tokens: int) -> None:
    tokens = samples * (asked.max_length or LONGEST_UNSTATED)
    if tokens > max_job_tokens:
        raise InvalidRequest(
            f"This job would train on up to {tokens:.1e} tokens; this server's limit is "
            f"{max_job_tokens:.1e}. Lower n_epochs, max_steps, batch_size or max_length.",
            param="n_epochs" if asked.max_steps is None else "max_steps",
            code="job_too_large",
        )
