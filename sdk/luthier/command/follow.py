"""Showing a job while it runs: a bar on a terminal, lines without one, JSON lines for scripts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from openai import BaseModel
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from luthier.command.curve import draw
from luthier.command.files import local_time
from luthier.command.session import Session, duration, is_utf8, printable
from luthier.types import Job
from luthier.watching import Interruption, Update

EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 3}
LEVELS = {"info": "", "warn": "yellow", "error": "bold red"}
LINE_EVERY_SECONDS = 10.0
CURVE_WIDTH = 100


class Display(Protocol):
    def show(self, update: Update, state: State) -> None: ...

    def close(self) -> None: ...


def follow(session: Session, job_id: str) -> Job:
    """Watch a job to its end, showing it; the job as it ended.

    Raises SystemExit(130) on Ctrl-C, having said that the job goes on.
    """
    job = session.client.fine_tuning.jobs.retrieve(job_id)
    state = State()
    display = _display(session, job_id)
    try:
        for update in session.client.fine_tuning.jobs.watch(job_id):
            job = update.job
            state.take(update)
            display.show(update, state)
    except KeyboardInterrupt:
        display.close()
        session.notes.print(
            f"\nThe job goes on. Watch it again: luthier jobs watch {job_id}\n"
            f"Cancel it: luthier jobs cancel {job_id}",
            soft_wrap=True,
        )
        raise SystemExit(130) from None
    finally:
        display.close()
    _conclude(session, job, state)
    return job


class State:
    """What the updates add up to: the newest metrics, the curves, the pace."""

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[int, float]]] = {"train": [], "valid": []}
        self.latest: dict[str, float] = {}
        self._pace: deque[tuple[float, int]] = deque(maxlen=30)

    def take(self, update: Update) -> None:
        for point in update.points:
            known = {name: value for name, value in point.values.items() if value is not None}
            if "loss" in known and point.split in self.curves:
                self.curves[point.split].append((point.step, known["loss"]))
            if point.split == "train":
                self.latest = known
        progress = update.job.progress
        if progress and update.job.status == "running":
            self._pace.append((time.monotonic(), progress.step))
        else:
            self._pace.clear()

    def seconds_left(self, job: Job) -> float | None:
        """By the service's own estimate, else by the steps of the last polls."""
        if job.estimated_finish is not None:
            return max(job.estimated_finish - time.time(), 0.0)
        if len(self._pace) < 2 or not job.progress or not job.progress.total_steps:
            return None
        (began, first), (now, step) = self._pace[0], self._pace[-1]
        if step <= first:
            return None
        return (job.progress.total_steps - step) * (now - began) / (step - first)

    def summary(self, job: Job) -> str:
        """Loss, speed and time left, as far as they are known."""
        told = []
        if "loss" in self.latest:
            told.append(f"loss {self.latest['loss']:.4f}")
        if "samples_per_second" in self.latest:
            told.append(f"{self.latest['samples_per_second']:.1f} samples/s")
        if job.status == "running" and (left := self.seconds_left(job)) is not None:
            told.append(f"{duration(left)} left")
        return " · ".join(told)


class JsonLines:
    """One JSON object a line, each with its `type`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._job: dict[str, object] = {}

    def show(self, update: Update, state: State) -> None:
        self._each("event", update.events)
        self._each("metrics", update.points)
        if stop := update.interruption:
            self._session.document({"type": "interruption", **vars(stop)})
        job = update.job.to_dict(mode="json")
        if job != self._job:
            self._job = job
            self._session.document({"type": "job", "job": job})

    def _each(self, kind: str, objects: Sequence[BaseModel]) -> None:
        for one in objects:
            self._session.document({"type": kind, kind: one})

    def close(self) -> None:
        pass


class PlainLines:
    """Events as they come, and a line of progress every few seconds or when the phase changes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._said_at = float("-inf")
        self._said = ""

    def show(self, update: Update, state: State) -> None:
        for when, level, message in news(update):
            self._session.say(f"{local_time(when)}  {level:5}  {message}")
        if update.interruption:
            self._session.say(interrupted(update.interruption))
        now = time.monotonic()
        where = situation(update.job)
        if where != self._said or now - self._said_at >= LINE_EVERY_SECONDS:
            self._said, self._said_at = where, now
            told = where, steps(update.job), state.summary(update.job)
            self._session.say(" · ".join(filter(None, told)))

    def close(self) -> None:
        pass


class TerminalBar:
    """A bar that is redrawn in place, with the events above it."""

    def __init__(self, session: Session) -> None:
        self._out = session.out
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[summary]}"),
            console=session.out,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None, summary="")
        self._bar.start()

    def show(self, update: Update, state: State) -> None:
        for when, level, message in news(update):
            line = Text(local_time(when)[11:] + "  ", style="dim")
            line.append(printable(message), LEVELS.get(level, ""))
            self._out.print(line)
        job, progress = update.job, update.job.progress
        summary = state.summary(job)
        if update.interruption:
            summary = interrupted(update.interruption)
        self._bar.update(
            self._task,
            description=situation(job),
            completed=progress.step if progress else 0,
            total=progress.total_steps if progress else None,
            summary=printable(summary),
        )

    def close(self) -> None:
        self._bar.stop()


def news(update: Update) -> list[tuple[float, str, str]]:
    """Time, level and text of what deserves a line: evaluations, and events but those that repeat
    the metrics, which the progress shows."""
    evaluations = [
        (point.created_at, "info", f"step {point.step}: {numbers(point.values)} (validation)")
        for point in update.points
        if point.split == "valid"
    ]
    events = [
        (float(event.created_at), event.level, event.message)
        for event in update.events
        if event.type != "metrics"
    ]
    return evaluations + events


def numbers(values: Mapping[str, Any]) -> str:
    return " · ".join(
        f"{name} {value:.4f}" for name, value in values.items() if type(value) is float
    )


def situation(job: Job) -> str:
    """What the job is doing, in two or three words."""
    if job.status == "running":
        return (job.phase or "running").replace("_", " ")
    if job.status == "queued" and job.queue and job.queue.position:
        return f"queued, place {job.queue.position}"
    if job.status == "paused":
        return "paused (luthier jobs resume goes on)"
    return job.status.replace("_", " ")


def steps(job: Job) -> str:
    progress = job.progress
    if progress is None or not progress.total_steps:
        return ""
    return f"step {progress.step} of {progress.total_steps}"


def interrupted(stop: Interruption) -> str:
    return f"no answer from the service, trying again in {stop.retry_in:g} s ({stop.message})"


def _display(session: Session, job_id: str) -> Display:
    if session.json:
        return JsonLines(session)
    session.say(f"Watching {job_id}. Ctrl-C ends the watching, not the job.")
    return TerminalBar(session) if session.out.is_terminal else PlainLines(session)


def _conclude(session: Session, job: Job, state: State) -> None:
    if session.json:
        return
    if is_utf8():
        named = {f"{split} loss": points for split, points in state.curves.items()}
        for line in draw(named, width=min(session.out.width, CURVE_WIDTH)):
            session.out.print(line, soft_wrap=True)
    if job.status == "succeeded":
        took = f" in {duration(job.finished_at - job.created_at)}" if job.finished_at else ""
        session.say(f"Succeeded{took}: {job.fine_tuned_model}", "bold green")
        if best := numbers((job.metrics and job.metrics.best) or {}):
            session.say(f"Best: {best}")
    elif job.status == "cancelled":
        session.say("Cancelled.", "bold yellow")
    else:
        session.say(failure(job), "bold red")


def failure(job: Job) -> str:
    """Why a job failed, as one paragraph."""
    if job.error is None:
        return "Failed, without a stated reason. See luthier jobs show."
    hint = (job.error.model_extra or {}).get("hint")
    about = f"code: {job.error.code}" + (f", param: {job.error.param}" if job.error.param else "")
    return " ".join(filter(None, (f"Failed: {job.error.message}", hint, f"({about})")))
