"""Check a data file here, with no server: `python -m ingest FILE --task TASK`.

Exit code 0 where the file can be trained on, 1 where it cannot, 2 for a wrong call.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from core.errors import LuthierError
from ingest import terminal
from ingest.child import prepare_limited
from ingest.prepare import Prepared

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _pairs(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in given]
    if not all(name and sign and column for name, sign, column in pairs):
        raise click.BadParameter("write it as NAME=COLUMN, such as text=review_body")
    return {name: column for name, _, column in pairs} or None


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("file", type=FILE)
@click.option("--task", help="What the data is for; told from it where that leaves no doubt.")
@click.option("--validation", type=FILE, help="Validation data that goes with it.")
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of the model to be trained: counts tokens, and shows rows as it sees them.",
)
@click.option("--max-length", type=click.IntRange(min=1), help="The most tokens of a row.")
@click.option(
    "--mapping", multiple=True, callback=_pairs, help="NAME=COLUMN: which of your columns is which."
)
@click.option(
    "--skip-invalid", type=float, default=0.0, help="The share of rows that may be bad, to 0.05."
)
@click.option(
    "--skipped-out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the rows that were left out to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
def check(
    file: Path,
    task: str | None,
    validation: Path | None,
    model: Path | None,
    max_length: int | None,
    mapping: dict[str, str] | None,
    skip_invalid: float,
    skipped_out: Path | None,
    as_json: bool,
) -> int:
    """Check every row of FILE as the service would, and say what it holds."""
    told: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="luthier-check-") as made:
            folder = Path(made)
            training = prepare_limited(
                file,
                task,
                column_mapping=mapping,
                out=folder / "training.arrow",
                role="training",
                skip_invalid=skip_invalid,
                skipped_out=folder / "skipped.jsonl",
                model=model,
                max_length=max_length,
            )
            told["training"] = training.report
            if skipped_out is not None and training.report["skipped"]["rows"]:
                skipped_out.write_bytes((folder / "skipped.jsonl").read_bytes())
            if validation is not None:
                told["validation"] = _validation(
                    validation, training, folder, mapping, skip_invalid, model, max_length
                ).report
    except LuthierError as error:
        told["error"] = error.as_job_error() | {"details": error.details}
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        terminal.show(told)
    return 1 if "error" in told else 0


def _validation(
    file: Path,
    training: Prepared,
    folder: Path,
    mapping: dict[str, str] | None,
    skip_invalid: float,
    model: Path | None,
    max_length: int | None,
) -> Prepared:
    return prepare_limited(
        file,
        training.report["task"],
        column_mapping=mapping,
        out=folder / "validation.arrow",
        role="validation",
        labels=training.labels or None,
        skip_invalid=skip_invalid,
        training=folder / "training.arrow",
        shape=training.report["shape"],
        model=model,
        max_length=max_length,
    )


def main() -> None:
    try:
        code = check.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
