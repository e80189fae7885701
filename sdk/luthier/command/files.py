"""`luthier files`: the datasets that the service holds."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import cast

import click
import httpx2
from openai import omit
from openai.types import FileObject, FilePurpose

from luthier.client import Luthier
from luthier.command.session import Session, connected, size
from luthier.downloads import DownloadError, sha256

DATA_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.group()
def files() -> None:
    """Upload, list and remove data files."""


@files.command()
@click.argument("file", type=DATA_FILE)
@click.option("--purpose", default="fine-tune", show_default=True)
@connected
def upload(session: Session, file: Path, purpose: str) -> None:
    """Upload FILE and print its id."""
    stored = upload_file(session.client, file, purpose)
    if session.json:
        session.document(stored)
    else:
        session.say(stored.id)


@files.command("list")
@click.option("--purpose", help="Only files of this purpose.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(min=1))
@connected
def list_files(session: Session, purpose: str | None, limit: int) -> None:
    """List files, newest first."""
    listing = session.client.files.list(purpose=purpose or omit)
    session.rows(
        islice(listing, limit),
        ["ID", "NAME", "SIZE", "STATUS", "PURPOSE", "CREATED"],
        lambda file: [
            file.id,
            file.filename,
            size(file.bytes),
            file.status,
            file.purpose,
            local_time(file.created_at),
        ],
    )


@files.command()
@click.argument("file_id")
@connected
def show(session: Session, file_id: str) -> None:
    """Show what is known of a file."""
    session.fields(session.client.files.retrieve(file_id))


@files.command()
@click.argument("file_id")
@connected
def delete(session: Session, file_id: str) -> None:
    """Delete a file."""
    deleted = session.client.files.delete(file_id)
    if session.json:
        session.document(deleted)
    else:
        session.say(f"Deleted {file_id}.")


@files.command()
@click.argument("file_id")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write it; else under its own name, here.",
)
@connected
def download(session: Session, file_id: str, output: Path | None) -> None:
    """Download a file's content."""
    stored = session.client.files.retrieve(file_id)
    target = output or Path(Path(stored.filename).name)
    if output is None and target.exists():
        raise click.UsageError(f"{target} exists already. Name another place with --output.")
    part = target.with_name(f".{target.name}.{file_id}.part")
    try:
        with session.client.files.with_streaming_response.content(file_id) as answer:
            answer.stream_to_file(part)
        # OpenAI's file has no hash; Luthier's has.
        expected = (stored.model_extra or {}).get("sha256")
        if part.stat().st_size != stored.bytes or expected not in (None, sha256(part)):
            raise DownloadError(f"{file_id} arrived damaged. Nothing was written; try again.")
        part.replace(target)
    except httpx2.TransportError as error:
        raise DownloadError(
            f"{file_id} was cut off ({error}). Nothing was written; try again."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    if session.json:
        session.document({"file": stored, "path": str(target)})
    else:
        session.say(f"{target} ({size(stored.bytes)})")


def upload_file(client: Luthier, file: Path, purpose: str = "fine-tune") -> FileObject:
    # An open file is streamed; a path would be read into memory whole.
    with file.open("rb") as stream:
        return client.files.create(file=(file.name, stream), purpose=cast(FilePurpose, purpose))


def local_time(unix: float) -> str:
    return datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M:%S")
