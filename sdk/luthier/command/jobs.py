"""`luthier jobs`: submit, list, follow and steer fine-tuning jobs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any

import click

from luthier.command.files import local_time
from luthier.command.follow import EXIT_CODES, follow
from luthier.command.session import Session, connected
from luthier.types import Job, StopMode


@click.group()
def jobs() -> None:
    """Submit, list, watch, pause, resume and cancel jobs."""


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what a job does; `spec` turns them into arguments of `create`."""
    for option in (
        click.option("--seed", type=click.IntRange(min=0)),
        click.option("--suffix", help="Becomes part of the fine-tuned model's name."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="NAME=VALUE",
            help="A hyperparameter, such as n_epochs=1 or learning_rate=5e-5. Repeatable.",
        ),
        click.option(
            "--column",
            "columns",
            multiple=True,
            metavar="NAME=COLUMN",
            help="Which of the file's columns holds what the task calls NAME. Repeatable.",
        ),
        click.option("--tuning", help="full, lora, freeze or scratch."),
        click.option("--task", help="Needed where the data and the model leave a doubt."),
        click.option("--model", required=True, help="The model to start from."),
    ):
        command = option(command)
    return command


def spec(
    model: str,
    task: str | None,
    tuning: str | None,
    columns: tuple[str, ...],
    settings: tuple[str, ...],
    suffix: str | None,
    seed: int | None,
) -> dict[str, Any]:
    hyperparameters = {name: _value(text) for name, text in _pairs(settings, "--set")}
    fields = {
        "model": model,
        "task": task,
        "tuning": tuning,
        "column_mapping": dict(_pairs(columns, "--column")) or None,
        "suffix": suffix,
        "seed": seed,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    }
    return {name: value for name, value in fields.items() if value is not None}


def _pairs(texts: tuple[str, ...], option: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.UsageError(f"{option} takes NAME=VALUE, not {text!r}.")
        pairs.append((name.strip(), value.strip()))
    return pairs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


stop_mode = click.option(
    "--mode",
    type=click.Choice(["save", "now"]),
    default="save",
    show_default=True,
    help="Whether to make a last checkpoint.",
)


@jobs.command()
@click.option("--training-file", required=True, metavar="FILE_ID")
@click.option("--validation-file", metavar="FILE_ID")
@job_options
@connected
def create(
    session: Session, training_file: str, validation_file: str | None, **options: Any
) -> None:
    """Submit a job on files that were uploaded, and print its id."""
    fields = spec(**options)
    if validation_file:
        fields["validation_file"] = validation_file
    job = session.client.fine_tuning.jobs.create(training_file=training_file, **fields)
    if session.json:
        session.document(job)
    else:
        session.say(job.id)


@jobs.command()
@click.option("--training-file", required=True, metavar="FILE_ID")
@click.option("--validation-file", metavar="FILE_ID")
@job_options
@connected
def estimate(
    session: Session, training_file: str, validation_file: str | None, **options: Any
) -> None:
    """Tell what a job would take: steps, memory, time, and whether it fits a worker."""
    fields = spec(**options)
    if validation_file:
        fields["validation_file"] = validation_file
    told = session.client.fine_tuning.jobs.estimate(training_file=training_file, **fields)
    if session.json:
        session.document(told)
        return
    span = f"{_duration(told.seconds_low)} to {_duration(told.seconds_high)}"
    session.say(f"time     {_duration(told.seconds)} ({span})")
    session.say(f"steps    {told.steps:,} on {told.rows:,} rows, {told.trained_tokens:,} tokens")
    session.say(f"memory   {told.peak_memory_bytes / 2**30:.1f} GiB")
    session.say(f"fits     {f'yes, on {told.worker}' if told.fits else 'no'}")
    for reason in told.reasons:
        session.say(reason)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@jobs.command()
@click.argument("job_id")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A hyperparameter that is to be otherwise. Repeatable.",
)
@click.option("--model", help="Another base model.")
@click.option("--suffix", help="Another suffix.")
@click.option("--seed", type=click.IntRange(min=0), help="Another seed.")
@connected
def clone(session: Session, job_id: str, settings: tuple[str, ...], **changes: Any) -> None:
    """Submit a job again, with changes, and print the new one's id."""
    jobs = session.client.fine_tuning.jobs
    asked = {name: value for name, value in changes.items() if value is not None}
    if settings:
        named = {name: _value(text) for name, text in _pairs(settings, "--set")}
        method = jobs.retrieve(job_id).method
        kind = method.type if method is not None else "supervised"
        asked["method"] = {"type": kind, kind: {"hyperparameters": named}}
    job = jobs.clone(job_id, asked)
    if session.json:
        session.document(job)
    else:
        session.say(job.id)


@jobs.command()
@click.argument("job_ids", nargs=-1, required=True)
@connected
def compare(session: Session, job_ids: tuple[str, ...]) -> None:
    """Show what differs between two to ten jobs."""
    found = session.client.fine_tuning.jobs.compare(*job_ids)
    if session.json:
        session.document(found)
        return
    session.rows(
        found.differences,
        ["", *job_ids],
        lambda row: [row.path, *("" if value is None else str(value) for value in row.values)],
    )


@jobs.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1))
@connected
def list_jobs(session: Session, limit: int) -> None:
    """List jobs, newest first."""
    session.rows(
        islice(session.client.fine_tuning.jobs.list(limit=min(limit, 100)), limit),
        ["ID", "STATUS", "PROGRESS", "MODEL", "TASK", "CREATED", "FINE-TUNED MODEL"],
        lambda job: [
            job.id,
            job.status,
            f"{job.progress.percent:.0f} %" if job.progress and job.progress.percent else "",
            job.model,
            job.task or "",
            local_time(job.created_at),
            job.fine_tuned_model or "",
        ],
    )


@jobs.command()
@click.argument("job_id")
@connected
def show(session: Session, job_id: str) -> None:
    """Show all that is known of a job."""
    session.fields(session.client.fine_tuning.jobs.retrieve(job_id))


@jobs.command()
@click.argument("job_id")
@connected
def watch(session: Session, job_id: str) -> None:
    """Follow a job until it ends.

    Exits with 0 if it succeeded, 1 if it failed, 3 if it was cancelled. Ctrl-C ends the watching,
    not the job."""
    job = follow(session, job_id)
    sys.exit(EXIT_CODES[job.status])


@jobs.command()
@click.argument("job_id")
@stop_mode
@connected
def cancel(session: Session, job_id: str, mode: StopMode) -> None:
    """Cancel a job. Its checkpoints are kept."""
    _report(session, session.client.fine_tuning.jobs.cancel(job_id, mode=mode))


@jobs.command()
@click.argument("job_id")
@stop_mode
@connected
def pause(session: Session, job_id: str, mode: StopMode) -> None:
    """Pause a job; its worker is free for others."""
    _report(session, session.client.fine_tuning.jobs.pause(job_id, mode=mode))


@jobs.command()
@click.argument("job_id")
@connected
def resume(session: Session, job_id: str) -> None:
    """Queue a paused job again."""
    _report(session, session.client.fine_tuning.jobs.resume(job_id))


def _report(session: Session, job: Job) -> None:
    if session.json:
        session.document(job)
    else:
        session.say(f"{job.id}: {job.status}")
