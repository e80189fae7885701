"""What is wrong with a request, in words: where, what is allowed there, what was given.

The words for a body come from its JSON schema and so say the same as the OpenAPI document. A
value with several allowed forms (`"auto"` or a number) gets one message, not one a form.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from core.errors import InvalidRequest

Schema = Mapping[str, Any]
Location = tuple[str | int, ...]
LONGEST_SHOWN = 80
MOST_EXPLAINED = 20
"""Problems of one request that are put in words: a body may hold a hundred thousand."""


def explain_body(problems: Sequence[Mapping[str, Any]], schema: Schema) -> InvalidRequest:
    """One error for pydantic's list of them; `schema` is the model's JSON schema."""
    found: dict[str, InvalidRequest] = {}
    problems = problems[:MOST_EXPLAINED]
    meant = _meant(problems, schema)
    for problem in problems:
        loc = tuple(problem["loc"])
        if any(loc[: len(form) - 1] == form[:-1] and loc[: len(form)] != form for form in meant):
            continue  # of a form that the value was not to have
        error = _explain(problem, schema, meant)
        found.setdefault(error.param or "", error)
    return _joined(list(found.values()))


def explain_parameters(problems: Sequence[Mapping[str, Any]]) -> InvalidRequest:
    """The same for parameters of path, query and headers."""
    return _joined(
        [
            InvalidRequest(
                f"`{name}`: {_lower(problem['msg'])}. Given: {_shown(problem['input'])}.",
                param=name,
                code="invalid_value",
            )
            for problem in problems
            for name in [".".join(map(str, problem["loc"][1:]))]
        ]
    )


def unknown(param: str, known: Sequence[str]) -> InvalidRequest:
    """The error for a name that is none of the `known`, with the nearest of them."""
    near = get_close_matches(param.rsplit(".", 1)[-1], known, n=1)
    rest = f"Did you mean `{near[0]}`?" if near else f"Known here: {', '.join(known)}."
    return InvalidRequest(f"`{param}` is not known. {rest}", param=param, code="unknown_parameter")


def not_allowed(param: str, schema: Schema, given: Any) -> InvalidRequest:
    """The error for a value that its own schema, without references, does not allow."""
    message = _must_be(f"`{param}`", _allowed(schema, schema) or "another value", given)
    return InvalidRequest(message, param=param, code="invalid_value")


def _joined(found: list[InvalidRequest]) -> InvalidRequest:
    first = found[0]
    if len(found) == 1:
        return first
    return InvalidRequest(
        f"{first.message} ({len(found) - 1} more in `details`.)",
        param=first.param,
        code=first.error_code,
        details=[
            {"param": error.param, "code": error.error_code, "message": error.message}
            for error in found
        ],
    )


def _meant(problems: Sequence[Mapping[str, Any]], schema: Schema) -> set[Location]:
    """Where a value may be one of several objects, which it was to be: the only one of which it
    has all that must be there. pydantic puts its name behind the value's own location."""
    fits: defaultdict[Location, dict[Location, bool]] = defaultdict(dict)
    for problem in problems:
        loc = tuple(problem["loc"])
        path, node, _ = _walk(loc, schema)
        form = loc[: len(path) + 1]
        names = [one.get("title") for one in _forms(node, schema)] if node is not None else []
        if len(form) > len(path) and form[-1] in names:
            deep = len(loc) - len(form)
            lacking = deep == 0 or (deep == 1 and problem["type"] == "missing")
            of_value = fits[tuple(path)]
            of_value[form] = of_value.get(form, True) and not lacking
    each = ([form for form, fit in of_value.items() if fit] for of_value in fits.values())
    return {forms[0] for forms in each if len(forms) == 1}


def _explain(
    problem: Mapping[str, Any], schema: Schema, meant: Collection[Location]
) -> InvalidRequest:
    path, node, parent = _walk(problem["loc"], schema, meant)
    param = ".".join(map(str, path)) or None
    if problem["type"] == "extra_forbidden":
        return unknown(".".join(map(str, path)), sorted(parent.get("properties", {})))
    if problem["type"] == "missing":
        return InvalidRequest(
            f"`{param}` is required.", param=param, code="missing_required_parameter"
        )
    if problem["type"] == "value_error":
        return InvalidRequest(str(problem["ctx"]["error"]), param=param, code="invalid_value")
    subject = f"`{param}`" if param else "The body"
    allowed = _allowed(node, schema) if node is not None else None
    if allowed is None:
        message = f"{subject}: {_lower(problem['msg'])}. Given: {_shown(problem['input'])}."
    else:
        message = _must_be(subject, allowed, problem["input"])
    return InvalidRequest(message, param=param, code="invalid_value")


def _must_be(subject: str, allowed: str, given: Any) -> str:
    return f"{subject} must be {allowed}; {_shown(given)} was given."


def _walk(
    loc: Sequence[str | int], schema: Schema, meant: Collection[Location] = ()
) -> tuple[list[str | int], Schema | None, Schema]:
    """Follow a location into the schema: the path taken, the schema there, and its parent's.

    pydantic's locations go on with the name of the form that was tried; there the walk ends, but
    for forms that were `meant`. The schema is None where the location leads to what the schema does
    not describe.
    """
    path: list[str | int] = []
    node: Schema | None = schema
    parent: Schema = schema
    for end, step in enumerate(loc, 1):
        if node is None:
            break
        if tuple(loc[:end]) in meant:
            node = next(form for form in _forms(node, schema) if form.get("title") == step)
            continue
        every = list(_forms(node, schema))
        forms = [form for form in every if _has_parts(form)]
        if not forms or (len(every) > 1 and not any(step in _names(form) for form in forms)):
            break
        parent = forms[0]
        path.append(step)
        extra = parent.get("additionalProperties")
        following = parent.get("properties", {}).get(step) or parent.get("items") or extra
        node = following if isinstance(following, Mapping) else None
    if loc and loc[-1] == "[key]":
        node = None
    return path, node, parent


def _names(form: Schema) -> Mapping[str, Any]:
    names: Mapping[str, Any] = form.get("properties", {})
    return names


def _has_parts(form: Schema) -> bool:
    return form.get("type") in ("object", "array")


def _forms(node: Schema, schema: Schema) -> Iterator[Schema]:
    """The forms that a value may take, references resolved, null left out."""
    if "$ref" in node:
        yield from _forms(schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], schema)
    elif "anyOf" in node:
        for form in node["anyOf"]:
            yield from _forms(form, schema)
    elif node.get("type") != "null":
        yield node


def _allowed(node: Schema, schema: Schema) -> str | None:
    """What the schema allows, in words; None where it has none."""
    forms = list(_forms(node, schema))
    words = [
        # Of several objects each is told from the others by what it must hold.
        f"an object with {' and '.join(f'`{name}`' for name in form['required'])}"
        if len(forms) > 1 and form.get("required")
        else _in_words(form)
        for form in forms
    ]
    return " or ".join(word for word in words if word) if words and all(words) else None


def _in_words(form: Schema) -> str | None:
    if "const" in form:
        return json.dumps(form["const"])
    if "enum" in form:
        return "one of " + ", ".join(json.dumps(value) for value in form["enum"])
    match form.get("type"):
        case "integer":
            return "a whole number" + _bounds(form)
        case "number":
            return "a number" + _bounds(form)
        case "string":
            return "text" + _sizes(form, "Length", "characters")
        case "array":
            return "a list" + _sizes(form, "Items", "items")
        case "boolean":
            return "true or false"
        case "object":
            each = form.get("additionalProperties")
            of_each = _in_words(each) if isinstance(each, Mapping) else None
            if of_each is not None and form.get("maxProperties") is None:
                return f"an object of which each value is {of_each}"
            return "an object" + _sizes(form, "Properties", "entries")
        case _:
            return None


def _bounds(form: Schema) -> str:
    low, high = form.get("minimum"), form.get("maximum")
    above, below = form.get("exclusiveMinimum"), form.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    words = []
    if low is not None:
        words.append(f"not below {low}")
    if above is not None:
        words.append(f"above {above}")
    if high is not None:
        words.append(f"not above {high}")
    if below is not None:
        words.append(f"below {below}")
    return " " + " and ".join(words) if words else ""


def _sizes(form: Schema, what: str, unit: str) -> str:
    low, high = form.get(f"min{what}"), form.get(f"max{what}")
    if low is not None and high is not None:
        return f" of {low} to {high} {unit}"
    if high is not None:
        return f" of at most {high} {unit}"
    return f" of at least {low} {unit}" if low is not None else ""


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
