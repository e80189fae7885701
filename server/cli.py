"""The `luthier-server` command. A subcommand that runs a room imports it when it is called."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from core import logging
from core.settings import Settings
from server.health import health
from server.keys import keys


def _configured(**given: object) -> Settings:
    """The settings with the options that were given on the command line, and logging set up."""
    options = {name: value for name, value in given.items() if value is not None}
    settings = Settings(**options)  # type: ignore[arg-type]
    logging.configure(settings.log_format, settings.log_level)
    return settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="luthier-server")
def main() -> None:
    """Luthier: a self-hosted fine-tuning service with OpenAI's fine-tuning API.

    Settings come from LUTHIER_* variables, then from ./luthier.toml.
    """


@main.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Default: ./luthier-data.")
@click.option("--host", help="Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 8000; 0 takes a free one.")
def up(data_dir: Path | None, host: str | None, port: int | None) -> None:
    """Run everything on this machine: PostgreSQL, Valkey, API, control worker, training worker.

    DATABASE_URL, REDIS_URL and LUTHIER_STORAGE_URL replace the parts that they name.
    """
    from server.up import up as run

    sys.exit(run(_configured(data_dir=data_dir, host=host, port=port)))


@main.command()
@click.option("--host", help="Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 8000.")
def api(host: str | None, port: int | None) -> None:
    """Run the HTTP API alone. Stateless: run as many as you like behind a proxy."""
    from server.http import serve

    serve(_configured(host=host, port=port))


@main.command()
def control() -> None:
    """Run the control worker and its clock: validate, reconcile, clean. Safe to run twice."""
    from worker.main import run_control

    run_control(_configured())


@main.command()
def worker() -> None:
    """Run one training worker: one job at a time, on this machine's CPUs or GPUs."""
    from worker.main import run_training

    run_training(_configured())


@main.command()
def migrate() -> None:
    """Bring the database to this release's schema. Safe to run twice, and at the same time."""
    from migrations import upgrade
    from models.db import Disconnected

    try:
        upgrade(_configured().require_database_url())
    except Disconnected as error:
        raise click.ClickException(f"The database cannot be reached: {error}") from error
    click.echo("The database has the newest schema.")


@main.command()
def models() -> None:
    """List the base models that are known without asking the Hugging Face hub."""
    from models import catalogue

    settings = _configured()
    for name in catalogue.names(settings):
        click.echo(f"{name}\t{catalogue.find(settings, name).path}")


main.add_command(keys)
main.add_command(health)
