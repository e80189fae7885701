"""Kinds of values: each a function that gives the value in its canonical form or raises BadValue.

Files without types (CSV) give text for everything, so a number may come as its text, and a list
or an object as JSON text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

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
    if "\x00" in value:
        raise BadValue("nul_byte", "the text holds a NUL character", "Take it out.")
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


def integer(value: Any) -> int:
    """A whole number, or its text."""
    whole = number(value)
    if not whole.is_integer():
        raise BadValue("wrong_type", "a whole number expected, found a fraction")
    return int(whole)


def any_text(value: Any) -> str:
    """Text that may be empty."""
    return value if value == "" else text(value)


def boolean(value: Any) -> bool:
    """A boolean, 0 or 1, or one of them as text."""
    if isinstance(value, str):
        value = {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    if value is True or value is False:
        return bool(value)
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise BadValue("wrong_type", "true or false expected")


def items(value: Any) -> list[Any]:
    """A list, or its JSON text."""
    value = _parsed(value, "[")
    if isinstance(value, list):
        return value
    raise BadValue("wrong_type", f"a list expected, found {type_name(value)}")


def texts(value: Any) -> list[str]:
    """A list of texts that has at least one."""
    return _each(text, items(value), "the list is empty")


def tokens(value: Any) -> list[str]:
    """A list of words. An empty word has no place among them."""
    return _each(text, items(value), "the row has no tokens")


def labels(value: Any) -> list[str]:
    """A list of class names without repeats, sorted. It may be empty: no class applies."""
    return sorted({label(item) for item in items(value)})


def tags(value: Any) -> list[str]:
    """One class name a token."""
    return _each(label, items(value), "the row has no tags")


def mapping(value: Any) -> dict[str, Any]:
    """An object, or its JSON text."""
    value = _parsed(value, "{")
    if isinstance(value, dict):
        return value
    raise BadValue("wrong_type", f"an object expected, found {type_name(value)}")


def anything(value: Any) -> Any:
    """A value that the shape checks when it builds the row."""
    return value


def _each(kind: Kind, values: list[Any], empty: str) -> list[Any]:
    if not values:
        raise BadValue("empty_list", empty, "Leave the row out.")
    checked = []
    for position, value in enumerate(values, start=1):
        try:
            checked.append(kind(value))
        except BadValue as bad:
            raise BadValue(bad.code, f"item {position}: {bad.message}", bad.hint) from None
    return checked


def _parsed(value: Any, opening: str) -> Any:
    if isinstance(value, str) and value.lstrip().startswith(opening):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadValue("invalid_json", f"not valid JSON ({error})") from None
    return value


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
