"""The curves of a run, and what its task can be drawn as, by matplotlib on its raster backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from training.report import samples
from training.report.run import Curve, Run

# A user's label may hold what matplotlib takes for a formula.
mpl.rcParams.update({"text.parse_math": False, "axes.grid": True, "grid.alpha": 0.3})

DOTS_PER_INCH = 110
COLOURS = {"train": "#4c78a8", "valid": "#e45756"}
MOST_CLASSES, MOST_WITH_NUMBERS = 30, 12
RAW_POINTS = 60
"""Above so many points a curve is drawn pale, with its running mean over it."""
SMOOTHED_OVER = 20
"""The running mean's window is this part of the curve."""
SHOWN_PICTURES = 6


def write(run: Run, path: Path) -> None:
    """Draw the curves, and below them the task's own picture, as PNG."""
    _draw(run).savefig(path, format="png", dpi=DOTS_PER_INCH)


def _draw(run: Run) -> Figure:
    pictures = samples.pictures(run)[:SHOWN_PICTURES]
    below = bool(run.counts or pictures)
    figure = Figure(figsize=(10, 11 if below else 6.5), layout="constrained")
    figure.suptitle(f"{run.spec.task}: {run.job_id}", fontsize=11)
    # matplotlib's own types leave open what comes of a grid's shape.
    parts: Any = [figure]
    if below:
        parts = figure.subfigures(2, 1, height_ratios=[6, 5])
    _curves(run, parts[0])
    if pictures:
        _pictures(pictures, parts[1])
    elif "confusion" in run.counts:
        _confusion(np.array(run.counts["confusion"]), run.spec.labels, parts[1].subplots())
    elif "by_label" in run.counts:
        _by_label(run.counts["by_label"], run.spec.labels, parts[1].subplots())
    return figure


def _curves(run: Run, part: FigureBase) -> None:
    loss, metric, rate, speed = part.subplots(2, 2).flat
    for split, colour in COLOURS.items():
        _plot(loss, run.curves.get((split, "loss")), split, colour)
        _plot(metric, run.curves.get((split, shown_metric(run))), split, colour)
    loss.set_title("loss", fontsize=10)
    metric.set_title(shown_metric(run), fontsize=10)
    if run.best is not None:
        step, value = run.best
        chosen = loss if run.spec.metric == "loss" else metric
        chosen.plot(step, value, "o", color=COLOURS["valid"], mfc="none", label="best")
    _plot(rate, run.curves.get(("train", "learning_rate")), "train", COLOURS["train"])
    rate.set_title("learning rate", fontsize=10)
    name = "tokens_per_second" if ("train", "tokens_per_second") in run.curves else ""
    _plot(speed, run.curves.get(("train", name)), "train", COLOURS["train"])
    speed.set_title("tokens a second", fontsize=10)
    speed.set_ylim(bottom=0)
    for axes in (loss, metric, rate, speed):
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
    for axes in (loss, metric):
        if axes.has_data():
            axes.legend(fontsize=8)


def shown_metric(run: Run) -> str:
    """What the model is chosen by; where that is the loss, another that was measured."""
    if run.spec.metric != "loss":
        return run.spec.metric
    speeds = ("learning_rate", "grad_norm", "tokens_per_second", "samples_per_second")
    others = sorted(
        (split != "valid", name) for split, name in run.curves if name not in ("loss", *speeds)
    )
    return others[0][1] if others else "loss"


def _plot(axes: Axes, curve: Curve | None, label: str, colour: str) -> None:
    if curve is None:
        return
    shown = curve.drawn()
    if len(shown.steps) <= RAW_POINTS:
        axes.plot(shown.steps, shown.values, ".-", color=colour, label=label, lw=1.3, ms=4)
        return
    axes.plot(shown.steps, shown.values, color=colour, alpha=0.3, lw=0.8)
    window = max(2, len(curve.values) // SMOOTHED_OVER)
    sums = np.cumsum(np.insert(curve.values, 0, 0.0))
    means = Curve(curve.steps[window - 1 :], (sums[window:] - sums[:-window]) / window).drawn()
    axes.plot(means.steps, means.values, color=colour, label=label, lw=1.5)


def _confusion(counts: Any, labels: list[str], axes: Axes) -> None:
    """Rows of the true class, each shaded by the shares of what was told."""
    frequent = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[:MOST_CLASSES])
    counts = counts[np.ix_(frequent, frequent)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = [samples.cut(labels[number], 20) for number in frequent]
    places = range(len(names))
    axes.set_xticks(places, names, rotation=90 if len(names) > 6 else 0, fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    axes.grid(False)
    few = "" if len(frequent) == len(labels) else f", the {len(frequent)} most frequent classes"
    axes.set_title(f"Confusion matrix of the last evaluation{few}", fontsize=10)
    if len(names) <= MOST_WITH_NUMBERS:
        for row in places:
            for column in places:
                dark = shares[row, column] > 0.5
                axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center",
                          fontsize=8, color="white" if dark else "black")  # fmt: skip
    axes.figure.colorbar(image, ax=axes, label="share of the true class")


def _by_label(counts: list[list[int]], labels: list[str], axes: Axes) -> None:
    scores = samples.scores(counts)[:MOST_CLASSES]
    places = np.arange(len(scores))
    for offset, name in enumerate(("precision", "recall", "f1")):
        values = [getattr(score, name) for score in scores]
        axes.bar(places + (offset - 1) * 0.27, values, 0.27, label=name)
    names = [samples.cut(label, 20) for label in labels[: len(scores)]]
    axes.set_xticks(places, names, rotation=90 if len(names) > 6 else 0, fontsize=8)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8)
    axes.set_title("Scores of each label in the last evaluation", fontsize=10)


def _pictures(pictures: list[samples.Picture], part: FigureBase) -> None:
    columns = 3
    grid = part.subplots(-(-len(pictures) // columns), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, picture in zip(grid.flat, pictures, strict=False):
        axes.imshow(picture.image, cmap="gray", aspect="equal")
        axes.set_title(samples.cut(picture.title, 40), fontsize=8)
