"""Which tasks a file is for: told from its columns, or from how an archive is laid out.

Only the first rows are read. Parsers written in C meet the user's file here, so it runs where
`prepare` runs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from core.errors import BadData, InvalidRequest
from ingest import layouts, sniff, tasks
from ingest.archives import Archive
from ingest.limits import Limits
from ingest.parsers import Batch, conll
from ingest.problems import BadValue, Problems
from ingest.source import first_rows, open_source, unpacked
from ingest.tasks.base import TaskFormat
from models.tasks import TRAINABLE

WRONG_TASK = frozenset(
    ("missing_columns", "one_class", "several_files", "unknown_layout", "unsupported_format")
)
"""What a file of another task is refused for."""


def infer_task(source: Path, *, name: str, limits: Limits | None = None) -> str:
    """The one task that the file is for.

    Raises InvalidRequest, which names the tasks that it may be for, or BadData.
    """
    found, possible = _fitting(source, name, limits or Limits())
    if len(possible) == 1:
        return possible[0]
    raise InvalidRequest(
        f"The task cannot be told from {found} of {name}. "
        f"Give `task`, one of: {', '.join(possible or TRAINABLE)}.",
        param="task",
        code="task_ambiguous",
    )


def told_what_fits(error: BadData, source: Path, task: str, limits: Limits) -> BadData:
    """The error, with the tasks that the file would fit if it looks like another task's."""
    if error.error_code not in WRONG_TASK or not error.details:
        return error
    try:
        _, possible = _fitting(source, error.details[0]["file"], limits)
    except BadData:
        return error
    if not possible or task in possible:
        return error
    fits = f"The file fits the task {' or '.join(possible)}."
    error.details[0]["hint"] = " ".join(filter(None, (error.details[0]["hint"], fits)))
    return BadData(
        f"{error.message} {fits}",
        param=error.param,
        hint=error.hint,
        code=error.error_code,
        details=error.details,
    )


def _fitting(source: Path, name: str, limits: Limits) -> tuple[str, list[str]]:
    """What the tasks were told from, in words, and the tasks. Raises BadData."""
    problems = Problems(name, "training_file", limits.max_problems)
    with tempfile.TemporaryDirectory() as scratch:
        source, _ = unpacked(source, Path(scratch), limits, problems)
        with source.open("rb") as stream:
            head = stream.read(sniff.HEAD_BYTES)
        sniffed = sniff.sniff(head)
        if sniffed.format in ("zip", "tar"):
            with Archive(source, sniffed.format, limits, problems) as archive:
                if layouts.media(archive):
                    return "the layout", _of_archive(archive, limits)
        if sniffed.format in ("csv", "tsv", "text") and conll.fits(sniff.text_of(head)):
            return "the lines", ["token-classification"]
        with open_source(source, Path(scratch), tasks.TABLE, limits, problems) as opened:
            batch = first_rows(opened.batches, problems)
    nested = [format.name for format in tasks.all_formats() if _is_nested(format, batch)]
    columns = batch.names()
    shown = ", ".join(columns[:20])
    return f"the columns ({shown})", nested or tasks.fitting(columns)


def _is_nested(format: TaskFormat, batch: Batch) -> bool:
    try:
        return format.unnest is not None and format.unnest(batch.rows[0]) is not None
    except BadValue:
        return True


def _of_archive(archive: Archive, limits: Limits) -> list[str]:
    """The tasks whose columns the first of their layouts that fits gives.

    Class folders fit wherever files lie in folders, so they count where nothing else does.
    """
    modality = layouts.modality(archive)
    explained: dict[tuple[bool, int, int], list[str]] = {}
    for format in tasks.all_formats():
        layout = layouts.of(archive, format)
        if format.modality != modality or layout is None:
            continue
        problems = Problems("", "", limits.max_problems)
        try:
            batch = first_rows(layouts.read(archive, layout, limits, problems), problems)
        except BadData:
            continue
        fit = tasks.fit(format, _columns(batch, layout))
        if fit is not None:
            explained.setdefault((layout != "class_folders", *fit), []).append(format.name)
    return explained[max(explained)] if explained else []


def _columns(batch: Batch, layout: str) -> list[str]:
    """The columns, less what COCO has room for and this file's annotations lack."""
    names = batch.names()
    if layout == "coco":
        if not any(any(row["objects"]["bbox"]) for row in batch.rows):
            names.remove("objects")
        if not any(item["segmentation"] for row in batch.rows for item in row["segments"]):
            names.remove("segments")
    return names
