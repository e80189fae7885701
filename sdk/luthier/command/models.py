"""`luthier models`: base models, fine-tuned models and their files."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from luthier.command.files import local_time
from luthier.command.session import Session, connected, size

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def models() -> None:
    """List models, download weights."""


@models.command("list")
@connected
def list_models(session: Session) -> None:
    """List the models that can be fine-tuned and those that were."""
    session.rows(
        session.client.models.list(),
        ["ID", "OWNER", "CREATED"],
        lambda model: [
            model.id,
            model.owned_by,
            local_time(model.created) if model.created else "",
        ],
    )


@models.command("files")
@click.argument("model")
@connected
def list_files(session: Session, model: str) -> None:
    """List a fine-tuned model's files."""
    session.rows(
        session.client.models.files(model),
        ["PATH", "SIZE", "SHA-256"],
        lambda file: [file.path, size(file.bytes), file.sha256],
    )


@models.command()
@click.argument("model")
@click.argument("folder", type=FOLDER, required=False)
@connected
def download(session: Session, model: str, folder: Path | None) -> None:
    """Download a fine-tuned model into FOLDER, or into a folder of its own name.

    Goes on where an earlier download stopped, and verifies every file."""
    folder = folder or Path(model.replace("/", "-").replace(":", "-"))
    download_model(session, model, folder)
    if session.json:
        session.document({"model": model, "folder": str(folder)})
    else:
        session.say(f"{model} is in {folder}")


@models.command()
@click.argument("model")
@connected
def delete(session: Session, model: str) -> None:
    """Delete a fine-tuned model with its files."""
    deleted = session.client.models.delete(model)
    if session.json:
        session.document(deleted)
    else:
        session.say(f"Deleted {model}.")


def download_model(session: Session, model: str, folder: Path) -> None:
    """Download with a bar, where there is a terminal to draw it on."""
    bar = Progress(
        TextColumn("download"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=session.out,
        disable=session.json or not session.out.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task("download", total=None)
        session.client.models.download(
            model,
            folder,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
