from __future__ import annotations

import click

from luthier.command.session import Session, connected


@click.command()
@connected
def tasks(session: Session) -> None:
    """List the tasks that the service can train."""
    session.rows(session.client.tasks.list(), ["TASK"], lambda task: [task.id])
