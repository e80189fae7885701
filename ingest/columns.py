"""Which of the file's columns is which of the task's.

A mapping's keys are the task's column names, its values the names in the file:
`{"text": "review_body", "label": "stars"}`. Without one, an exact name wins, then the same name
in other case, then a single known alias. Two aliases of one column are a question to the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from core.errors import Unprocessable
from ingest.parsers import Batch
from ingest.problems import BadValue, Problems
from ingest.tasks.base import Column, Samples, Shape, TaskFormat

SAMPLED = 1000
"""Rows that are looked at to tell shapes apart."""

Binding = list[tuple[Column, str]]
"""The task's columns that the file has, each with its name in the file."""


def bind(
    format: TaskFormat,
    found: Sequence[str],
    first: Batch,
    mapping: dict[str, str] | None,
    problems: Problems,
    wanted: str | None = None,
) -> tuple[Shape, Binding]:
    """The shape of the task that the file fits, and where each of its columns comes from.

    `found` are the file's columns, `first` its first rows. Of several shapes that fit, the one
    that uses the most columns by their own names is meant; `wanted` allows one alone.
    """
    mapping = mapping or {}
    if wanted is not None:
        shapes = tuple(shape for shape in format.shapes if shape.name == wanted)
        format = replace(format, shapes=shapes)
    _check_mapping(format, found, mapping)
    bound = [
        (shape, binding)
        for shape in format.shapes
        if (binding := _bind_shape(shape, found, mapping)) is not None
    ]
    if not bound:
        raise _missing(format, found, mapping, problems)
    try:
        fitting = [
            (shape, binding)
            for shape, binding in bound
            if shape.accepts is None or shape.accepts(_samples(binding, first, mapping))
        ]
    except BadValue as question:
        raise problems.fatal(question.code, question.message, question.hint) from None
    # Where the values fit no shape, the nearest one says row by row what is wrong.
    shape, binding = max(fitting or bound, key=lambda pair: _score(pair[1], mapping))
    for column, name in binding:
        others = [other for other in _by_alias(column, found) if other != name]
        others = [other for other in others if other not in {name for _, name in binding}]
        if others and name not in (column.name, mapping.get(column.name)):
            raise problems.fatal(
                "ambiguous_columns",
                f"`{column.name}` could be `{name}` or `{others[0]}`",
                f'Say which with column_mapping, such as {{"{column.name}": "{name}"}}.',
            )
    return shape, binding


def _score(binding: Binding, mapping: dict[str, str]) -> int:
    return sum(
        2 if name == column.name or column.name in mapping else 1 for column, name in binding
    )


def _samples(binding: Binding, first: Batch, mapping: dict[str, str]) -> Samples:
    rows = first.rows[:SAMPLED]
    return Samples(
        {column.name: name for column, name in binding},
        {
            column.name: [row[name] for row in rows if row.get(name) not in (None, "")]
            for column, name in binding
        },
        frozenset(mapping),
    )


def _bind_shape(shape: Shape, found: Sequence[str], mapping: dict[str, str]) -> Binding | None:
    """None if a required column is absent, or one that the mapping names is not the shape's."""
    if not mapping.keys() <= {column.name for column in shape.columns}:
        return None
    binding: Binding = []
    taken = set(mapping.values())
    for column in shape.columns:
        free = [name for name in found if name not in taken]
        name = mapping.get(column.name) or next(iter(_candidates(column, free)), None)
        if name is not None:
            binding.append((column, name))
            taken.add(name)
        elif column.required:
            return None
    return binding


def _candidates(column: Column, found: Sequence[str]) -> list[str]:
    """The columns that may be this one, the likeliest first."""
    if column.name in found:
        return [column.name]
    return [name for name in found if name.strip().lower() == column.name] or _by_alias(
        column, found
    )


def _by_alias(column: Column, found: Sequence[str]) -> list[str]:
    return [name for name in found if name.strip().lower() in column.aliases]


def _check_mapping(format: TaskFormat, found: Sequence[str], mapping: dict[str, str]) -> None:
    known = {column.name for shape in format.shapes for column in shape.columns}
    for ours, theirs in mapping.items():
        if ours not in known:
            turned = "Turn it around. " if theirs in known else ""
            raise Unprocessable(
                f"column_mapping: `{ours}` is not a column of {format.name}.",
                code="unknown_mapping",
                param="column_mapping",
                hint=f"{turned}Keys are the task's columns ({_listed(sorted(known))}), "
                "values the names in the file.",
            )
        if theirs not in found:
            near = get_close_matches(theirs, found, n=1)
            nearest = f" Did you mean `{near[0]}`?" if near else ""
            raise Unprocessable(
                f"column_mapping: the file has no column `{theirs}`.",
                code="unknown_mapping",
                param="column_mapping",
                hint=f"It has {_listed(found)}.{nearest}",
            )


def _missing(
    format: TaskFormat, found: Sequence[str], mapping: dict[str, str], problems: Problems
) -> Exception:
    """Names the columns that the nearest shape lacks, those found, and a mapping to try."""

    def lacking(shape: Shape) -> list[str]:
        bound = {column.name for column, _ in _partial(shape, found, mapping)}
        return [
            column.name for column in shape.columns if column.required if column.name not in bound
        ]

    shape = min(format.shapes, key=lambda shape: len(lacking(shape)))
    missing = lacking(shape)
    if not missing:
        return Unprocessable(
            f"column_mapping names columns of {format.name} that do not go together: "
            f"{_listed(sorted(mapping))}.",
            code="unknown_mapping",
            param="column_mapping",
            hint="They go together as " + "; or ".join(shape.name for shape in format.shapes) + ".",
        )
    used = {name for _, name in _partial(shape, found, mapping)}
    spare = [name for name in found if name not in used]
    near = get_close_matches(missing[0], spare, n=1, cutoff=0.4)
    candidate = near[0] if near else "name in your file"
    return problems.fatal(
        "missing_columns",
        f"no column {_listed(missing)} for {format.name}; found {_listed(found)}",
        f'Rename it, or give column_mapping, such as {{"{missing[0]}": "{candidate}"}}.',
    )


def _partial(shape: Shape, found: Sequence[str], mapping: dict[str, str]) -> Binding:
    binding: Binding = []
    for column in shape.columns:
        name = mapping.get(column.name) or next(iter(_candidates(column, found)), None)
        if name is not None:
            binding.append((column, name))
    return binding


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "none"
