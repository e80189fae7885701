"""The registry of tasks. A new task is one line here and one file of its name in `training/tasks/`.

The names are those of Hugging Face's pipelines. `ingest/tasks/<name>.py` holds a task's data
schema and formats, `training/tasks/<name>.py` its model and loss (dashes become underscores);
both are found by name, so that the API can list tasks without importing torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

DEFAULT_METRIC: dict[str, tuple[str, bool]] = {
    "text-classification": ("accuracy", True),
    "token-classification": ("f1", True),
    "fill-mask": ("loss", False),
    "text-generation": ("loss", False),
    "question-answering": ("f1", True),
    "preference": ("loss", False),
    "translation": ("bleu", True),
    "summarization": ("rougeL", True),
    "feature-extraction": ("mrr", True),
    "image-classification": ("accuracy", True),
    "object-detection": ("map", True),
    "image-segmentation": ("mean_iou", True),
    "automatic-speech-recognition": ("wer", False),
    "audio-classification": ("accuracy", True),
    "text-to-speech": ("loss", False),
}
"""The tasks that can be trained: the metric that picks the best checkpoint, and whether greater
is better."""

SHAPE_METRIC: dict[tuple[str, str], tuple[str, bool]] = {
    ("text-classification", "text,labels"): ("f1_micro", True),
    ("text-classification", "text,target"): ("mse", False),
    ("feature-extraction", "sentence1,sentence2,score"): ("spearman", True),
    ("feature-extraction", "premise,hypothesis,label"): ("accuracy", True),
}
"""The same for data of a shape that another metric suits."""

TRAINABLE: tuple[str, ...] = tuple(DEFAULT_METRIC)


def default_metric(task: str, shape: str) -> tuple[str, bool]:
    """The metric that picks the best checkpoint, and whether greater is better."""
    return SHAPE_METRIC.get((task, shape), DEFAULT_METRIC[task])


def better(
    values: Mapping[str, float], best: Mapping[str, float], metric: str, greater_is_better: bool
) -> bool:
    """Whether an evaluation's values are better than those of the best so far, which are empty
    before the first.

    Of equal ones those with less loss are: a small validation file leaves an accuracy few values,
    and weights that are surer of what they tell are worth more. An evaluation whose metric is no
    number, and so missing, is worse than all that have one.
    """

    def rank(of: Mapping[str, float]) -> tuple[bool, float, float]:
        value = of.get(metric, 0.0)
        return metric in of, value if greater_is_better else -value, -of["loss"]

    return not best or rank(values) > rank(best)


def module_name(task: str) -> str:
    return task.replace("-", "_")


def suggest(task: str) -> str | None:
    """The trainable task nearest to a misspelt one, or None."""
    near = get_close_matches(task, TRAINABLE, n=1)
    return near[0] if near else None
