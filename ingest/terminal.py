"""A report as text for a terminal: what the file is, what is wrong or odd, what is seen of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

WIDTH = 98
PROBLEMS = 20
LABELS = 12
BAR = 24
SEEN = 3
"""Rows that are shown as the model sees them; `--json` has all ten."""
SEEN_CHARACTERS = 600


def show(told: Mapping[str, Any]) -> None:
    for role in ("training", "validation"):
        if role in told:
            _report(role, told[role])
    if "error" in told:
        _error(told["error"])
    else:
        _say("The data can be trained on.", fg="green", bold=True)


def _report(role: str, report: Mapping[str, Any]) -> None:
    _say(f"{report['file']}: {report['rows']:,} rows for {report['task']}", bold=True)
    facts = {
        "role": role,
        "format": " in ".join(filter(None, (report["format"], report["encoding"]))),
        "shape": report["shape"],
        "columns": ", ".join(
            ours if ours == theirs else f"{ours} from {theirs}"
            for ours, theirs in report["columns"].items()
        ),
        "not used": ", ".join(report["ignored_columns"]),
    }
    _pairs((name, value) for name, value in facts.items() if value)
    _labels(report["labels"])
    _profile(report["profile"])
    skipped = report["skipped"]
    if skipped["rows"]:
        _head(f"{skipped['rows']:,} rows are left out")
        _problems(skipped["problems"])
    if report["findings"]:
        _head("Worth a look")
    for finding in report["findings"]:
        _item(f"{finding['code']}: {finding['message']}. {finding['hint']}", _at(finding["places"]))
    _seen(report["profile"].get("seen", ()))
    click.echo()


def _error(error: Mapping[str, Any]) -> None:
    details = error.get("details") or []
    if not details:
        _say(error["message"], fg="red", bold=True)
        return
    shown = "the first of them" if len(details) > PROBLEMS else "all of them"
    _say("The data cannot be trained on.", fg="red", bold=True)
    _head(f"{len(details):,} problems listed; here are {shown}" if len(details) > 1 else "Problem")
    _problems(details)


def _problems(details: Sequence[Mapping[str, Any]]) -> None:
    for detail in details[:PROBLEMS]:
        place = next(
            (f"{unit} {detail[unit]}" for unit in ("line", "row", "entry") if detail[unit]), "file"
        )
        column = f", column `{detail['column']}`" if detail["column"] else ""
        message = f"{detail['message']}. {detail['hint'] or ''}".strip()
        _item(f"{detail['file']}, {place}{column}: {message} [{detail['code']}]", detail["sample"])
    if len(details) > PROBLEMS:
        _item(f"{len(details) - PROBLEMS:,} more; --json lists them")


def _labels(labels: Mapping[str, int]) -> None:
    if not labels:
        return
    _head(f"{len(labels):,} labels")
    most = max(labels.values())
    frequent = sorted(labels.items(), key=lambda pair: -pair[1])
    width = max(len(_clean(name, 30)) for name, _ in frequent[:LABELS])
    for name, count in frequent[:LABELS]:
        bar = "█" * max(1, round(BAR * count / most))
        click.echo(f"  {_clean(name, 30):{width}}  {count:>9,}  {bar}")
    if len(frequent) > LABELS:
        click.echo(f"  and {len(frequent) - LABELS:,} more")


def _profile(profile: Mapping[str, Any]) -> None:
    spreads = [
        (f"{name}, {kind}", spread)
        for kind in ("characters", "items", "numbers")
        for name, spread in profile[kind].items()
    ]
    counted = profile.get("tokens")
    if counted and counted["tokens"]:
        spreads.append(("tokens a row", counted["tokens"]))
    if spreads:
        width = max(len(name) for name, _ in spreads)
        _head(f"{'Sizes':{width}}  {'least':>9}{'median':>9}{'95 %':>9}{'most':>9}")
    for name, spread in spreads:
        cells = "".join(f"{spread[key]:>9,.6g}" for key in ("min", "p50", "p95", "max"))
        click.echo(f"  {name:{width}}  {cells}")
    for column, found in profile.get("languages", {}).items():
        total = sum(found.values())
        shares = ", ".join(f"{name} {count / total:.0%}" for name, count in list(found.items())[:5])
        _item(f"languages of {column}: {shares}")
    estimate = profile.get("estimate")
    if estimate:
        tokens = estimate.get("tokens_per_epoch")
        counts = f", about {tokens:,} tokens an epoch" if tokens else ""
        _item(
            f"left to the service: {estimate['n_epochs']} epochs of "
            f"{estimate['steps_per_epoch']:,} steps, {estimate['batch_size']} rows each{counts}"
        )


def _seen(rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        _head("As the model will see it (what is learnt stands between « and »)")
    for row in rows[:SEEN]:
        if "error" in row:
            _item(f"row {row['id']}: {row['error']}")
        for sequence in row.get("sequences", ()):
            parts = (
                f"«{part['text']}»" if part["learnt"] else part["text"]
                for part in sequence["parts"]
            )
            size = f", {sequence['tokens']:,} tokens" if "tokens" in sequence else ""
            cut = f", {sequence['cut']:,} of them cut off" if sequence.get("cut") else ""
            _item(
                f"row {row['id']}, {sequence['name']}{size}{cut}", "".join(parts), SEEN_CHARACTERS
            )


def _at(places: Iterable[Mapping[str, Any]]) -> str | None:
    shown = [f"{unit} {value}" for place in places for unit, value in place.items() if value]
    return f"at {', '.join(shown)}" if shown else None


def _head(text: str) -> None:
    click.echo()
    _say(text, bold=True)


def _pairs(pairs: Iterable[tuple[str, str]]) -> None:
    for name, value in pairs:
        click.echo(f"  {name:10}{_clean(value, WIDTH - 12)}")


def _item(text: str, below: str | None = None, longest: int = 200) -> None:
    click.echo(
        textwrap.fill(_clean(text, 1000), WIDTH, initial_indent="  ", subsequent_indent="    ")
    )
    if below is not None:
        shown = _clean(below, longest)
        click.secho(
            textwrap.fill(shown, WIDTH, initial_indent="    ", subsequent_indent="    "), dim=True
        )


def _say(text: str, **style: Any) -> None:
    click.secho(textwrap.fill(_clean(text, 2000), WIDTH), **style)


def _clean(text: str, longest: int) -> str:
    """The text on one line, with no character that could command the terminal."""
    one_line = "".join(
        character if character.isprintable() else {"\n": "↵", "\t": " "}.get(character, "\ufffd")
        for character in text[: longest + 1]
    )
    return one_line if len(one_line) <= longest else one_line[: longest - 1] + "…"
