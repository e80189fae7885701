"""Alembic's entry: connects, takes the migration lock, runs."""

from __future__ import annotations

import time

from alembic import context
from sqlalchemy import text

import models.every  # noqa: F401  (fills the metadata)
from models.base import Base
from models.db import sync_engine

MIGRATION_LOCK = 5_884_267_301
"""An advisory lock's number, ours alone: two servers that start together migrate in turn."""

LOCK_POLL_SECONDS = 0.5

database_url = context.config.attributes["database_url"]

engine = sync_engine(database_url)
with engine.connect() as connection:
    # Asked for again and again: who waits within a statement would be cancelled by its timeout, and
    # would hold up an index that is built concurrently.
    lock = text("SELECT pg_try_advisory_lock(:lock)")
    while not connection.scalar(lock, {"lock": MIGRATION_LOCK}):
        connection.rollback()
        time.sleep(LOCK_POLL_SECONDS)
    # A migration that waits for a table must not hold up everybody behind it.
    connection.execute(text("SET lock_timeout = '4s'"))
    connection.commit()
    context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
    connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": MIGRATION_LOCK})
    connection.commit()
engine.dispose()  # or an idle connection would stay open as long as the process
