"""The key that `up` makes at its first start, so that the first call needs no administration."""

from __future__ import annotations

from collections.abc import Callable

from core.settings import Settings, write_private
from models import keys
from models.db import sync_engine, transaction

KEY_FILE = "api_key"
PROJECT = "default"


def ensure_key(settings: Settings, say: Callable[[str], None]) -> None:
    """See that `DATA_DIR/api_key` holds a key of this database: kept if it is live, else made anew.

    A file from before (another database was in use, the key was revoked) is kept as
    `api_key.old`.
    """
    path, secret = settings.data_dir / KEY_FILE, settings.signing_secret()
    engine = sync_engine(settings.require_database_url(), pool_size=1)
    try:
        with transaction(engine) as session:
            if path.exists():
                if keys.authenticate(session, secret, path.read_text().strip()) is not None:
                    return
                path.rename(path.with_suffix(".old"))
                say(f"{path} held no live key of this database: it is {path.name}.old now")
            _, text = keys.create(
                session, secret, project=PROJECT, name="made by luthier-server up"
            )
        write_private(path, text + "\n")
    finally:
        engine.dispose()
