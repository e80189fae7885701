"""`luthier data`: data files, looked at before anything is trained on them."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from luthier.command.files import upload_file
from luthier.command.report import show
from luthier.command.session import Session, connected, size

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def data() -> None:
    """Check data files."""


@data.command()
@click.argument("file", type=FILE)
@click.option("--task", help="What the data is for; told from it where that leaves no doubt.")
@click.option("--validation", type=FILE, help="Validation data that goes with it.")
@click.option("--model", help="The folder of a model: counts tokens, shows rows as it sees them.")
@click.option("--mapping", multiple=True, metavar="NAME=COLUMN", help="Which column is which.")
@click.option("--skip-invalid", type=float, help="The share of rows that may be bad, to 0.05.")
@click.option(
    "--server", is_flag=True, help="Have a service check it: upload the file, print what is found."
)
@connected
def check(
    session: Session,
    file: Path,
    task: str | None,
    validation: Path | None,
    model: str | None,
    mapping: tuple[str, ...],
    skip_invalid: float | None,
    server: bool,
) -> int:
    """Check every row of FILE on this machine: what it holds, what is wrong, what a model sees.

    Needs no server, but the server's package beside this one; with --server it is the other way
    round, and --model is the name of a model of the service. Exits with 1 if the file cannot be
    trained on."""
    if server:
        fields = {
            "task": task,
            "model": model,
            "skip_invalid": skip_invalid,
            "column_mapping": _pairs(mapping),
        }
        return check_there(session, file, validation, fields)
    return check_here(
        file,
        {
            "--task": task,
            "--validation": None if validation is None else str(validation),
            "--model": model,
            "--skip-invalid": None if skip_invalid is None else str(skip_invalid),
        },
        [*(text for pair in mapping for text in ("--mapping", pair)), *["--json"] * session.json],
    )


def check_there(
    session: Session, file: Path, validation: Path | None, fields: dict[str, Any]
) -> int:
    """Upload, have the service check, show what it found; 1 if it cannot be trained on."""
    asked = {name: value for name, value in fields.items() if value is not None}
    for param, path in (("training_file", file), ("validation_file", validation)):
        if path is not None:
            session.say(f"Uploading {path} ({size(path.stat().st_size)})")
            asked[param] = upload_file(session.client, path).id
    begun = session.client.validations.create(**asked)
    done = session.client.validations.wait(begun.id)
    if session.json:
        session.document(done)
    else:
        show(session, done)
    return 0 if done.status == "succeeded" else 1


def _pairs(mapping: tuple[str, ...]) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in mapping]
    if not all(name and sign and column for name, sign, column in pairs):
        raise click.BadParameter("write --mapping as NAME=COLUMN, such as text=review_body")
    return {name: column for name, _, column in pairs} or None


def check_here(file: Path, options: dict[str, str | None], more: list[str]) -> int:
    """Run the server's own check in a process of its own; its exit code."""
    if find_spec("ingest") is None:
        raise click.ClickException(
            "The package luthier-server, which checks data, is not installed beside this command. "
            "Install it, or upload the file: a service checks it at once."
        )
    given = [text for name, value in options.items() if value is not None for text in (name, value)]
    command = [sys.executable, "-m", "ingest", *given, *more, "--", str(file)]
    return subprocess.run(command, check=False).returncode
