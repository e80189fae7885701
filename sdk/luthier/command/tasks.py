from __future__ import annotations

import click

from luthier.command.session import Session, connected


@click.command()
@connected
def tasks(session: Session) -> None:
    """List the tasks, which of them can be trained, and what data they take.

    With --json also each one's columns, an example and the hyperparameters."""
    session.rows(
        session.client.tasks.list(),
        ["TASK", "TRAINABLE", "DATA", "METRICS"],
        lambda task: [
            task.id,
            "yes" if task.trainable else "not yet",
            "; ".join(task.formats),
            ", ".join(task.metrics),
        ],
    )
