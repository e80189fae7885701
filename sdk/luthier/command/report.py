"""What the service found in data files, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.command.session import Session
from luthier.types import CheckedFile, Validation

SHOWN = 20
"""Problems and labels; `--json` has all that the service lists."""


def show(session: Session, validation: Validation) -> None:
    for role, checked in (("training", validation.training), ("validation", validation.validation)):
        if checked is not None:
            _checked(session, role, checked)
    if validation.error is None:
        session.say("The data can be trained on.", "bold green")
        return
    details = validation.error.details or []
    session.say("The data cannot be trained on.", "bold red")
    if not details:
        session.say(f"{validation.error.message} ({validation.error.code})")
    _problems(session, details)


def _checked(session: Session, role: str, checked: CheckedFile) -> None:
    report = checked.report
    session.say(f"{report['file']}: {checked.rows:,} {role} rows ({checked.shape})", "bold")
    labels = report.get("labels") or {}
    for name, count in sorted(labels.items(), key=lambda pair: -pair[1])[:SHOWN]:
        session.say(f"  {count:>9,}  {name}")
    if len(labels) > SHOWN:
        session.say(f"  and {len(labels) - SHOWN:,} more labels")
    for step, what in (report.get("cleaning") or {}).items():
        session.say(f"  {step.replace('_', ' ')}: {what}")
    skipped = report.get("skipped") or {}
    if skipped.get("rows"):
        session.say(
            f"  {skipped['rows']:,} rows are left out: "
            f"luthier files download {checked.skipped_file}"
        )
    for finding in report.get("findings", ()):
        session.say(f"  {finding['code']}: {finding['message']}. {finding['hint']}", "yellow")


def _problems(session: Session, details: Sequence[Mapping[str, Any]]) -> None:
    for detail in details[:SHOWN]:
        place = next(
            (f" {unit} {detail[unit]}" for unit in ("line", "row", "entry") if detail.get(unit)), ""
        )
        column = f", column `{detail['column']}`" if detail.get("column") else ""
        told = f"{detail['message']}. {detail.get('hint') or ''}".strip()
        session.say(f"  {detail['file']}{place}{column}: {told} [{detail['code']}]")
        if detail.get("sample"):
            session.say(f"    {detail['sample']}", "dim")
    if len(details) > SHOWN:
        session.say(f"  and {len(details) - SHOWN:,} more; --json lists them")
