"""Chat messages: OpenAI's form, ShareGPT's, and plain strings, checked and made one.

Used by the chat and the preference tasks. Tool definitions and calls stay JSON text: templates
take them as objects, and Arrow has no type for a free object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from ingest.kinds import type_name
from ingest.problems import BadValue

MESSAGE = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string()),
        pa.field("name", pa.string()),
        pa.field("tool_calls", pa.string()),
        pa.field("tool_call_id", pa.string()),
        pa.field("weight", pa.int8()),
    ]
)
"""`content` is null only beside `tool_calls` (JSON text of a list). `weight` 0 keeps an assistant
message out of the loss; null is 1."""
MESSAGES = pa.list_(MESSAGE)

ROLES = ("system", "developer", "user", "assistant", "tool")
_PLAIN_ROLES = frozenset(ROLES)
_SHAREGPT = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}

Message = dict[str, Any]


def message(role: str, content: str | None, **rest: Any) -> Message:
    """A message without the members that it does not have, so that equal ones are equal."""
    known = {name: value for name, value in rest.items() if value is not None}
    return {"role": role, "content": content, **known}


def parse(value: Any, column: str) -> list[Message]:
    """A list of messages in either form."""
    if not isinstance(value, list):
        raise BadValue(
            "wrong_type", f"a list of messages expected, found {type_name(value)}", column=column
        )
    if not value:
        raise BadValue("empty_list", "there are no messages", "Leave the row out.", column=column)
    parsed = []
    for position, item in enumerate(value, start=1):
        if _is_simple(item):
            parsed.append(item)
            continue
        try:
            parsed.append(_one(item))
        except BadValue as bad:
            raise BadValue(
                bad.code, f"message {position}: {bad.message}", bad.hint, column=column
            ) from None
    return parsed


def require_answer(messages: Sequence[Message], column: str) -> None:
    """There must be something to learn: an assistant message that counts."""
    if not any(item["role"] == "assistant" and item.get("weight") != 0 for item in messages):
        raise BadValue(
            "no_assistant_message",
            "no assistant message to learn from",
            "The loss is taken on assistant messages whose weight is not 0.",
            column=column,
        )


def _is_simple(item: Any) -> bool:
    """A message as most are, which needs no more than a look."""
    return (
        type(item) is dict
        and len(item) == 2
        and type(item.get("content")) is str
        and type(item.get("role")) is str
        and item["role"] in _PLAIN_ROLES
    )


def _one(item: Any) -> Message:
    if not isinstance(item, dict):
        raise BadValue("invalid_message", f"an object expected, found {type_name(item)}")
    if "role" not in item and "from" in item:
        return _sharegpt(item)
    role = item.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadValue(
            "invalid_message", f"the role is {role!r:.40}", f"Roles are {', '.join(ROLES)}."
        )
    calls = item.get("tool_calls")
    if calls is not None and (
        role != "assistant"
        or not isinstance(calls, list)
        or not all(isinstance(call, dict) and call.get("function") for call in calls)
    ):
        raise BadValue(
            "invalid_message",
            "`tool_calls` must be a list of objects with `function`, on an assistant message",
        )
    content = item.get("content")
    if content is None and not calls:
        raise BadValue("invalid_message", f"the {role} message has no `content`")
    weight = item.get("weight")
    if weight not in (None, 0, 1):
        raise BadValue("invalid_message", f"the weight is {weight!r:.40}", "It is 0 or 1.")
    if weight is not None and role != "assistant":
        raise BadValue("invalid_message", f"a {role} message has a weight", "Only assistants do.")
    return message(
        role,
        None if content is None else _content(content),
        name=_optional_text(item, "name"),
        tool_calls=json_text(calls) if calls else None,
        tool_call_id=_optional_text(item, "tool_call_id"),
        weight=None if weight is None else int(weight),
    )


def _sharegpt(item: dict[str, Any]) -> Message:
    role = _SHAREGPT.get(str(item["from"]).lower())
    if role is None:
        raise BadValue(
            "invalid_message",
            f"`from` is {item['from']!r:.40}",
            f"Known are {', '.join(_SHAREGPT)}.",
        )
    if "value" not in item:
        raise BadValue("invalid_message", "the message has no `value`")
    return message(role, _content(item["value"]))


def _content(value: Any) -> str:
    """Text, or OpenAI's list of text parts, which is joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = []
        for part in value:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind != "text" or not isinstance(part.get("text"), str):
                raise BadValue(
                    "unsupported_content",
                    f"a content part of type {kind!r:.40}",
                    "Only text parts can be trained on.",
                )
            parts.append(part["text"])
        return "".join(parts)
    raise BadValue("invalid_message", f"`content` must be text, found {type_name(value)}")


def _optional_text(item: dict[str, Any], key: str) -> str | None:
    value = item.get(key)
    if value is None or isinstance(value, str):
        return value
    raise BadValue("invalid_message", f"`{key}` must be text, found {type_name(value)}")


def json_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def tools_text(value: Any, column: str = "tools") -> str | None:
    """Tool definitions as JSON text."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            value = None
    if isinstance(value, list) and all(isinstance(tool, dict) for tool in value):
        return json_text(value) if value else None
    raise BadValue("invalid_tools", "`tools` must be a list of tool definitions", column=column)
