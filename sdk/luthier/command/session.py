"""What every command has: a client, a way to print, and `--json`.

With `--json`, standard output holds JSON and nothing else. Without a terminal there are no
colours and no redrawing: one line is one record, fields parted by tabs.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, TypeVar

import click
from openai import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from luthier.client import Luthier

R = TypeVar("R")


@dataclass
class Session:
    base_url: str | None
    json: bool

    @cached_property
    def client(self) -> Luthier:
        return Luthier(base_url=self.base_url)

    @cached_property
    def out(self) -> Console:
        return console()

    @cached_property
    def notes(self) -> Console:
        """For what is said about the work and is not its result."""
        return console(stderr=True)

    def document(self, value: object) -> None:
        """One JSON value on one line of standard output."""
        click.echo(json.dumps(_plain(value), ensure_ascii=False))

    def say(self, line: str, style: str = "") -> None:
        """A line for people; nothing with `--json`."""
        if not self.json:
            self.out.print(Text(printable(line), style=style), soft_wrap=True)

    def rows(
        self, objects: Iterable[BaseModel], columns: Sequence[str], row: Callable[[Any], list[str]]
    ) -> None:
        """A list: a table, or tab-separated lines, or one JSON document."""
        objects = list(objects)
        if self.json:
            self.document({"object": "list", "data": objects})
        elif self.out.is_terminal:
            table = Table(*columns, box=None, pad_edge=False, header_style="bold")
            for one in objects:
                table.add_row(*(Text(printable(cell), overflow="fold") for cell in row(one)))
            self.out.print(table)
        else:
            for one in objects:
                click.echo("\t".join(printable(cell) for cell in row(one)))

    def fields(self, one: BaseModel) -> None:
        """One object: its members by name, or one JSON document."""
        if self.json:
            self.document(one)
            return
        for name, value in one.to_dict(mode="json").items():
            if value not in (None, [], {}):
                shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                self.say(f"{name}: {shown}")


def connected(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command its session as first argument, and the options that make one."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
    @click.option(
        "--base-url",
        metavar="URL",
        help="The service's address; else LUTHIER_BASE_URL, else the local service. The key is "
        "read from LUTHIER_API_KEY or the local service's folder, never from the command line, "
        "where other users would see it.",
    )
    @wraps(command)
    def with_session(*args: Any, as_json: bool, base_url: str | None, **options: Any) -> R:
        return command(Session(base_url, as_json), *args, **options)

    return with_session


def console(*, stderr: bool = False) -> Console:
    # Messages and names come from data: nothing in them may act as markup.
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def printable(text: str) -> str:
    """Control characters in a message or a file name must not reach the terminal."""

    def shown(char: str) -> bool:
        return char in "\n\t" or unicodedata.category(char) != "Cc"

    return "".join(char if shown(char) else "\N{REPLACEMENT CHARACTER}" for char in text)


def is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def size(count: int) -> str:
    """Bytes for people: 1.2 GB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for people: 0:07, 12:30, 1:02:03."""
    minutes, second = divmod(round(max(seconds, 0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.to_dict(mode="json")
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return value
