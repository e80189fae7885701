"""`luthier-server keys`: API keys, for whoever has the database and the secret at hand."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import click

from core.clock import now
from core.settings import Settings
from models import keys as table
from models.db import sync_engine, transaction

DATABASE_URL_FILE = "database_url"
"""Where a running `up` says how to reach its own PostgreSQL."""


@click.group()
@click.option("--data-dir", type=click.Path(path_type=Path), help="That of a running `up`.")
@click.pass_context
def keys(context: click.Context, data_dir: Path | None) -> None:
    """Make, list and revoke API keys.

    They are written to DATABASE_URL, or to the PostgreSQL of the `up` that runs on --data-dir.
    """
    settings = Settings(data_dir=data_dir) if data_dir else Settings()
    if not settings.database_url:
        running = settings.data_dir / DATABASE_URL_FILE
        if not running.exists():
            raise click.ClickException(
                f"No luthier-server runs on {settings.data_dir}. Start `luthier-server up`, say "
                "which --data-dir it runs on, or set DATABASE_URL."
            )
        settings = settings.model_copy(update={"database_url": running.read_text().strip()})
    context.obj = settings


class Lifetime(click.ParamType[timedelta]):
    name = "12h|30d|52w"

    def convert(
        self, value: str, param: click.Parameter | None, context: click.Context | None
    ) -> timedelta:
        found = re.fullmatch(r"([1-9]\d{0,5})([hdw])", value)
        if found is None:
            self.fail("Say a number of hours, days or weeks: 12h, 30d, 52w.", param, context)
        unit = {"h": "hours", "d": "days", "w": "weeks"}[found[2]]
        return timedelta(**{unit: int(found[1])})


class Scopes(click.ParamType[tuple[str, ...]]):
    name = ",".join(table.SCOPES)

    def convert(
        self,
        value: str | tuple[str, ...],
        param: click.Parameter | None,
        context: click.Context | None,
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        named = tuple(value.split(","))
        if unknown := set(named) - set(table.SCOPES):
            self.fail(
                f"{', '.join(sorted(unknown))}: choose among {', '.join(table.SCOPES)}.",
                param,
                context,
            )
        return named


@keys.command()
@click.option("--project", default="default", show_default=True, help="Made if there is none.")
@click.option("--name", default="", help="What the key is for.")
@click.option("--scopes", type=Scopes(), default=table.SCOPES, help="Default: all.")
@click.option("--expires", type=Lifetime(), help="Default: never.")
@click.pass_obj
def create(
    settings: Settings,
    project: str,
    name: str,
    scopes: tuple[str, ...],
    expires: timedelta | None,
) -> None:
    """Make a key and print it. It is not shown again."""
    with transaction(sync_engine(settings.require_database_url())) as session:
        _, text = table.create(
            session,
            settings.signing_secret(),
            project=project,
            name=name,
            scopes=scopes,
            lifetime=expires,
        )
    click.echo(text)


@keys.command("list")
@click.pass_obj
def list_(settings: Settings) -> None:
    """List all keys: id, first characters, project, scopes, state, last use, name."""
    with transaction(sync_engine(settings.require_database_url())) as session:
        for key, project in table.everyone(session):
            state = "live"
            if key.revoked_at is not None:
                state = "revoked"
            elif key.expires_at is not None and key.expires_at <= now():
                state = "expired"
            used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
            scopes = ",".join(key.scopes)
            click.echo("\t".join([key.id, key.hint, project, scopes, state, used, key.name]))


@keys.command()
@click.argument("key_id")
@click.pass_obj
def revoke(settings: Settings, key_id: str) -> None:
    """End a key by its id (see `keys list`). It is refused from the next request on."""
    with transaction(sync_engine(settings.require_database_url())) as session:
        done = table.revoke(session, key_id)
    if not done:
        raise click.ClickException(f"No live key has the id {key_id}. See `keys list`.")
    click.echo(f"{key_id} is revoked.")
