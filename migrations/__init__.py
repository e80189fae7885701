"""Alembic's migrations, run from code: `upgrade(url)` brings a database to this release's schema.

Each is compatible with the previous release: add, fill, switch, and only in a later release drop.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config


def config(database_url: str) -> Config:
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("file_template", "%%(year)d_%%(month).2d_%%(day).2d_%%(slug)s")
    made.attributes["database_url"] = database_url
    return made


def upgrade(database_url: str) -> None:
    """Migrate to the newest schema. Two at once are safe: the second waits, then finds it done."""
    command.upgrade(config(database_url), "head")
