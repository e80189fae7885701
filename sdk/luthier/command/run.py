"""`luthier run`: the whole way of a job in one command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from luthier.command.files import DATA_FILE, upload_file
from luthier.command.follow import EXIT_CODES, follow
from luthier.command.jobs import job_options, spec
from luthier.command.models import FOLDER, download_model
from luthier.command.session import Session, connected, size


@click.command()
@click.argument("file", type=DATA_FILE)
@click.option("--validation", type=DATA_FILE, help="Data to evaluate on while training.")
@click.option(
    "-o", "--output", type=FOLDER, help="Where to put the weights; else a folder named as the job."
)
@job_options
@connected
def run(
    session: Session,
    file: Path,
    validation: Path | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Fine-tune a model on FILE: upload it, submit the job, watch it, download the weights.

    Exits with 0 when the weights are here, 1 if the job failed, 3 if it was cancelled. Ctrl-C
    ends the watching, not the job."""
    fields = spec(**options)
    session.client.models.retrieve(fields["model"])  # a wrong name is told before a long upload
    fields["training_file"] = _upload(session, file)
    if validation:
        fields["validation_file"] = _upload(session, validation)
    job = session.client.fine_tuning.jobs.create(**fields)
    job = follow(session, job.id)
    if job.fine_tuned_model is None or job.status != "succeeded":
        sys.exit(EXIT_CODES[job.status])
    folder = output or Path(job.id)
    download_model(session, job.fine_tuned_model, folder)
    if session.json:
        session.document({"type": "result", "job": job, "folder": str(folder)})
    else:
        session.say(f"The weights are in {folder}")


def _upload(session: Session, file: Path) -> str:
    session.say(f"Uploading {file} ({size(file.stat().st_size)})")
    stored = upload_file(session.client, file)
    if session.json:
        session.document({"type": "file", "file": stored})
    return stored.id
