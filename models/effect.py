"""Which settings go with which task: none is accepted that nothing would come of.

What a call says of its task is checked when it comes; the shape of the data, which settles the
rest, is known once its files were read.
"""

from __future__ import annotations

from core.errors import InvalidRequest
from models import augmentation
from models.optimisation import Optimisation, Optimizer
from models.spec import Hyperparameters

UNPAIRED = "prompt,completion,label"
"""The shape of preference data that has one answer a row."""
JOINED = (("preference", UNPAIRED), ("feature-extraction", "anchor,positive,negative"))
"""Shapes of data whose loss sets the rows of a step against each other."""
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
CLASSIFIES = ("text-classification", "image-classification", "audio-classification")
"""The tasks whose rows may have one label each."""
SEVERAL = ("text,labels", "text,target")
"""Shapes of their rows that have not."""
ONE_LABEL = ("label_smoothing", "class_weights", "focal_gamma")
OF_PREFERENCES = ("beta", "preference_loss")


def check(asked: Hyperparameters, task: str, shape: str = "") -> None:
    """Raise InvalidRequest for a setting that does not go with another one, the task or, where it
    is known, the data's shape."""
    _check_together(asked)
    if asked.max_length is not None and task not in IN_TOKENS:
        raise _refused(
            "max_length",
            f"`max_length` counts tokens of texts, and nothing of {task!r} is cut by it. "
            "Leave it out.",
        )
    if asked.micro_batch_tokens is not None and (why := _never_packed(asked, task, shape)):
        raise _refused(
            "micro_batch_tokens",
            f"`micro_batch_tokens` is for packed rows, and {why}. "
            "Choose `micro_batch_size` in its place.",
        )
    for name in ONE_LABEL:
        if getattr(asked, name) and (task not in CLASSIFIES or shape in SEVERAL):
            raise _refused(
                name, f"`{name}` is for classification with one label a row. Leave it out."
            )
    for name, tasks in augmentation.OF_TASKS.items():
        default = Optimisation.model_fields[name].default
        if task not in tasks and getattr(asked, name) != default:
            raise _of_other_tasks(name, task)
    for name in OF_PREFERENCES:
        if task != "preference" and getattr(asked, name) is not None:
            raise _refused(name, f"`{name}` belongs to the task 'preference'. Leave it out.")
    if shape and asked.preference_loss is not None:
        _check_loss(asked.preference_loss, unpaired=shape == UNPAIRED)


def check_validation(asked: Hyperparameters, validates: bool) -> None:
    """Raise InvalidRequest where validation rows are needed and there are none."""
    if asked.early_stopping_patience is not None and not validates:
        raise InvalidRequest(
            "`early_stopping_patience` needs validation rows to watch. Give a `validation_file` or "
            "`cleaning.split`, or leave it out.",
            param="early_stopping_patience",
            code="validation_file_required",
        )


def _check_together(asked: Hyperparameters) -> None:
    for name, optimizers in OF_OPTIMIZERS.items():
        default = type(asked).model_fields[name].default
        if asked.optimizer not in optimizers and getattr(asked, name) != default:
            known = " or ".join(map(repr, optimizers))
            raise _refused(
                name, f"`{name}` goes with `optimizer` {known}. Set that, or leave it out."
            )
    if asked.learning_rate is not None and asked.learning_rate_multiplier != "auto":
        raise _refused(
            "learning_rate_multiplier",
            "`learning_rate` is the rate itself, and `learning_rate_multiplier` scales the "
            "default rate. Leave one of them out.",
        )


def _never_packed(asked: Hyperparameters, task: str, shape: str) -> str | None:
    """Why no model of this job is given packed rows by their tokens."""
    if task not in IN_TOKENS:
        return f"those of {task!r} are not"
    if asked.packing is False:
        return "`packing` is false"
    if (task, shape) in JOINED:
        return "a step's rows are set against each other here"
    return None


def _check_loss(loss: str, *, unpaired: bool) -> None:
    if (loss == "kto") is not unpaired:
        raise _refused(
            "preference_loss",
            f"`preference_loss` {loss!r} does not go with these rows: 'kto' learns from "
            f"`{UNPAIRED}`, one answer a row; 'dpo', 'ipo' and 'orpo' from rows with two. "
            f"Leave it out, or choose {'kto' if unpaired else 'dpo'!r}.",
        )


def _of_other_tasks(name: str, task: str) -> InvalidRequest:
    tasks = augmentation.OF_TASKS[name]
    known = " and ".join(repr(task) for task in tasks)
    why = augmentation.WHY_NOT.get((name, task))
    return _refused(
        name,
        f"`{name}` is for the task{'s' if len(tasks) > 1 else ''} {known}"
        f"{f': {why}' if why else ''}. Leave it out.",
    )


def _refused(name: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=name, code="invalid_value")
