"""Kinds of values: each a function that gives the value in its canonical form or raises BadValue.

Files without types (CSV) give strings for everything, so a number may come as its text, and a
list or an object as JSON text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ingest.problems import BadValue

Kind = Callable[[Any], Any]


def text(value: Any) -> str:
    """Text with at least one visible character, exactly as written."""
    if not isinstance(value, str):
        raise BadValue(
            "wrong_type",
            f"text expected, found {type_name(value)}",
            "Put it between quotes, or map another column.",
        )
    if not value or value.isspace():
        raise BadValue("empty_text", "the text is empty", "Fill it in or leave the row out.")
    return value


def label(value: Any) -> str:
    """A class name. Whole numbers and booleans become their text: 1 and 1.0 are "1"."""
    if isinstance(value, str):
        if not value or value.isspace():
            raise BadValue("missing_value", "no label", "Fill it in or leave the row out.")
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise BadValue(
        "wrong_type",
        f"a label must be text or a whole number, found {type_name(value)}",
        "For a number to be predicted, name the column `target`."
        if isinstance(value, float)
        else "",
    )


def number(value: Any) -> float:
    """A finite number, or its text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise BadValue("wrong_type", "a number expected, found text") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadValue("wrong_type", f"a number expected, found {type_name(value)}")
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise BadValue("not_finite", "the number is not finite", "Leave the row out.")
    return float(value)


def type_name(value: object) -> str:
    """The JSON name of a value's type, as the user wrote it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return type(value).__name__
