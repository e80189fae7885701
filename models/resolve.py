"""From what was asked to what is run: every default filled in, by rules stated here.

Pure functions of the request and of what validation found in the data, so that `job.resolved`
says before the first step what the run will do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from core.errors import InvalidRequest
from models import augmentation
from models.optimisation import Optimisation, Optimizer
from models.spec import Hyperparameters, JobRequest, Lora, PreferenceLoss, ResolvedSpec
from models.tasks import default_metric

BASE_LEARNING_RATE = {"full": 5e-5, "freeze": 5e-5, "lora": 2e-4, "scratch": 5e-4}
"""By the way of tuning: the fewer weights move, the farther they may. `learning_rate_multiplier`
scales it."""
UNPAIRED = "prompt,completion,label"
"""The shape of preference data that has one answer a row."""
JOINED = (("preference", UNPAIRED), ("feature-extraction", "anchor,positive,negative"))
"""Shapes of data whose loss sets the rows of a step against each other."""
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

    _check_effect(asked, facts)
    multiplier = 1.0 if asked.learning_rate_multiplier == "auto" else asked.learning_rate_multiplier
    interval = max(1, min(steps_per_epoch, 500, total_steps))
    metric, greater = ("loss", False)
    if facts.valid_rows:
        metric, greater = default_metric(facts.task, facts.shape)
    elif asked.early_stopping_patience is not None:
        raise InvalidRequest(
            "early_stopping_patience needs a validation_file to watch. Give one, or leave it out.",
            param="early_stopping_patience",
            code="validation_file_required",
        )
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


OF_OPTIMIZERS: dict[str, tuple[Optimizer, ...]] = {
    "momentum": ("sgd",),
    "adam_beta1": ("adamw", "adamw_8bit"),
    "adam_beta2": ("adamw", "adamw_8bit"),
    "adam_epsilon": ("adamw", "adamw_8bit", "rmsprop"),
}
"""Which optimizers a setting belongs to."""
IN_TOKENS = (
    "text-classification", "token-classification", "question-answering", "fill-mask",
    "text-generation", "preference", "feature-extraction", "translation", "summarization",
)  # fmt: skip
"""The tasks whose rows are cut at `max_length`."""


def _check_effect(asked: Hyperparameters, facts: DataFacts) -> None:
    """Raise InvalidRequest for a setting that nothing would come of."""
    for name, optimizers in OF_OPTIMIZERS.items():
        default = type(asked).model_fields[name].default
        if asked.optimizer not in optimizers and getattr(asked, name) != default:
            known = " or ".join(map(repr, optimizers))
            raise InvalidRequest(
                f"`{name}` goes with `optimizer` {known}. Set that, or leave it out.", param=name
            )
    if asked.learning_rate is not None and asked.learning_rate_multiplier != "auto":
        raise InvalidRequest(
            "`learning_rate` is the rate itself, and `learning_rate_multiplier` scales the "
            "default rate. Leave one of them out.",
            param="learning_rate_multiplier",
        )
    if asked.max_length is not None and facts.task not in IN_TOKENS:
        raise InvalidRequest(
            f"`max_length` counts tokens of texts, and nothing of {facts.task!r} is cut by it. "
            "Leave it out.",
            param="max_length",
        )
    if asked.micro_batch_tokens is not None and (why := _never_packed(asked, facts)):
        raise InvalidRequest(
            f"`micro_batch_tokens` is for packed rows, and {why}. "
            "Choose `micro_batch_size` in its place.",
            param="micro_batch_tokens",
        )


def _never_packed(asked: Hyperparameters, facts: DataFacts) -> str | None:
    """Why no model of this job is given packed rows by their tokens."""
    if facts.task not in IN_TOKENS:
        return f"those of {facts.task!r} are not"
    if asked.packing is False:
        return "`packing` is false"
    if (facts.task, facts.shape) in JOINED:
        return "a step's rows are set against each other here"
    return None


CLASSIFIES = ("text-classification", "image-classification", "audio-classification")
"""The tasks whose rows may have one label each."""
SEVERAL = ("text,labels", "text,target")
"""Shapes of their rows that have not."""
ONE_LABEL = ("label_smoothing", "class_weights", "focal_gamma")


def _optimisation(asked: Hyperparameters, facts: DataFacts) -> dict[str, Any]:
    """What is taken as it was asked for, where it goes with the task."""
    chosen = {name: getattr(asked, name) for name in Optimisation.model_fields}
    for name in ONE_LABEL:
        one_label = facts.task in CLASSIFIES and facts.shape not in SEVERAL
        if chosen[name] and not one_label:
            raise InvalidRequest(
                f"`{name}` is for classification with one label a row. Leave it out.", param=name
            )
    for name, tasks in augmentation.OF_TASKS.items():
        if facts.task not in tasks and chosen[name] != Optimisation.model_fields[name].default:
            raise _of_other_tasks(name, facts.task)
    weights = chosen["class_weights"]
    if isinstance(weights, dict) and set(weights) != set(facts.labels):
        raise InvalidRequest(
            "`class_weights` must name the labels of the data, each once: "
            f"{', '.join(facts.labels[:20])}.",
            param="class_weights",
        )
    return chosen


def _of_other_tasks(name: str, task: str) -> InvalidRequest:
    tasks = augmentation.OF_TASKS[name]
    known = " and ".join(repr(task) for task in tasks)
    why = augmentation.WHY_NOT.get((name, task))
    return InvalidRequest(
        f"`{name}` is for the task{'s' if len(tasks) > 1 else ''} {known}"
        f"{f': {why}' if why else ''}. Leave it out.",
        param=name,
    )


def _beta(asked: Hyperparameters, task: str) -> float | None:
    if task == "preference":
        return 0.1 if asked.beta in (None, "auto") else float(asked.beta)
    if asked.beta is not None:
        raise InvalidRequest("`beta` belongs to the task 'preference'. Leave it out.", param="beta")
    return None


def _preference_loss(asked: Hyperparameters, facts: DataFacts) -> PreferenceLoss | None:
    """DPO for rows with two answers, KTO for rows with one."""
    loss = asked.preference_loss
    if facts.task != "preference":
        if loss is not None:
            raise InvalidRequest(
                "`preference_loss` belongs to the task 'preference'. Leave it out.",
                param="preference_loss",
            )
        return None
    unpaired = facts.shape == UNPAIRED
    if loss is None:
        return "kto" if unpaired else "dpo"
    if (loss == "kto") is not unpaired:
        raise InvalidRequest(
            f"`preference_loss` {loss!r} does not go with these rows: 'kto' learns from "
            f"`{UNPAIRED}`, one answer a row; 'dpo', 'ipo' and 'orpo' from rows with two. "
            f"Leave it out, or choose {'kto' if unpaired else 'dpo'!r}.",
            param="preference_loss",
        )
    return loss


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
