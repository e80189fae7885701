"""`luthier-server health`: what a container asks of the process inside it.

Celery's own ping would not do: a worker in the middle of a training step has no ear for it.
"""

from __future__ import annotations

import http.client
import socket
from datetime import timedelta

import click
from kombu.exceptions import OperationalError

from core.doorbell import CONTROL_QUEUE, Doorbell
from core.settings import Settings
from models import workers
from models.db import Disconnected, ping, sync_engine, transaction

WORKER_SILENCE = timedelta(seconds=60)
"""A worker reports every ten seconds, from a thread that training does not hold up."""


@click.group()
def health() -> None:
    """Exit with 0 if the process of this kind on this machine is well, else say why not."""


@health.command()
def api() -> None:
    """The API answers, and has its database."""
    if not is_ready("127.0.0.1", Settings().port):
        raise click.ClickException("The API does not answer that it is ready.")


@health.command()
def control() -> None:
    """What the control worker needs is there: a migrated database, and the broker."""
    settings = Settings()
    doorbell = Doorbell(settings)
    try:
        with transaction(sync_engine(settings.require_database_url())) as session:
            ping(session)
        doorbell.pending(CONTROL_QUEUE)
    except (*Disconnected, OperationalError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        doorbell.close()


@health.command()
def worker() -> None:
    """A training worker of this machine was heard from within the last minute."""
    with transaction(sync_engine(Settings().require_database_url())) as session:
        heard = {row.hostname for row in workers.alive(session, WORKER_SILENCE)}
    if socket.gethostname() not in heard:
        raise click.ClickException(
            f"No worker on {socket.gethostname()} was heard from within the last minute."
        )


def is_ready(host: str, port: int) -> bool:
    """Whether the API at this address says that it can serve."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
