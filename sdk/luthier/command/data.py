"""`luthier data`: data files, looked at before anything is trained on them."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click

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
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
def check(
    file: Path,
    task: str | None,
    validation: Path | None,
    model: str | None,
    mapping: tuple[str, ...],
    skip_invalid: float | None,
    as_json: bool,
) -> int:
    """Check every row of FILE on this machine: what it holds, what is wrong, what a model sees.

    Needs no server, but the server's package beside this one. Exits with 1 if the file cannot be
    trained on."""
    return check_here(
        file,
        {
            "--task": task,
            "--validation": None if validation is None else str(validation),
            "--model": model,
            "--skip-invalid": None if skip_invalid is None else str(skip_invalid),
        },
        [*(text for pair in mapping for text in ("--mapping", pair)), *["--json"] * as_json],
    )


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
