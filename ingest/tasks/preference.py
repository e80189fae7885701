"""Preference: which of two answers is wanted (DPO and kin), or whether one is (KTO)."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import pyarrow as pa

from ingest import kinds
from ingest.messages import MESSAGES, Message, message, parse, require_answer, tools_text
from ingest.problems import BadValue
from ingest.tasks.base import ID, Column, Row, Shape, TaskFormat

TOOLS = Column("tools", "Tool definitions.", kinds.anything, required=False)


def _openai(row: Row) -> Row:
    given = row["input"]
    tools = given.get("tools") or row.get("tools")
    chosen = parse(row["preferred_output"], "preferred_output")
    rejected = parse(row["non_preferred_output"], "non_preferred_output")
    require_answer(chosen, "preferred_output")
    require_answer(rejected, "non_preferred_output")
    prompt = parse(given.get("messages"), "input")
    return _row(prompt, chosen, rejected, chat=True, tools=tools)


def _pair(row: Row) -> Row:
    """Texts or messages; without a prompt, what both answers begin with is it."""
    chosen, rejected = row["chosen"], row["rejected"]
    chat = isinstance(chosen, list)
    sides = _answer(chosen, "chosen", chat), _answer(rejected, "rejected", chat)
    if row.get("prompt") is not None:
        return _row(_prompt(row["prompt"], chat), *sides, chat=chat, tools=row.get("tools"))
    prompt, (left, right) = _shared(*sides) if chat else _shared_text(chosen, rejected)
    if not prompt or not left or not right:
        raise BadValue(
            "no_prompt",
            "there is no `prompt`, and `chosen` and `rejected` do not begin alike and then differ",
            "Add a `prompt`, or begin both with it.",
            column="chosen",
        )
    return _row(prompt, left, right, chat=chat, tools=row.get("tools"))


def _unpaired(row: Row) -> Row:
    chat = isinstance(row["completion"], list)
    prompt = _prompt(row["prompt"], chat)
    answer = _answer(row["completion"], "completion", chat)
    wanted = row["label"]
    return _row(
        prompt,
        answer if wanted else None,
        None if wanted else answer,
        chat=chat,
        tools=row.get("tools"),
    )


def _row(
    prompt: list[Message],
    chosen: list[Message] | None,
    rejected: list[Message] | None,
    *,
    chat: bool,
    tools: Any,
) -> Row:
    if chosen == rejected:
        raise BadValue(
            "no_preference",
            "the preferred answer equals the other",
            "Leave the row out: nothing can be learnt from it.",
        )
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chat": chat,
        "tools": tools_text(tools),
    }


def _prompt(value: Any, chat: bool) -> list[Message]:
    if isinstance(value, list):
        return parse(value, "prompt")
    if chat:
        raise BadValue("wrong_type", "the answers are messages, the prompt is not", column="prompt")
    return [message("user", _text(value, "prompt"))]


def _answer(value: Any, column: str, chat: bool) -> list[Message]:
    if chat:
        answer = parse(value, column)
        require_answer(answer, column)
        return answer
    return [message("assistant", _text(value, column))]


def _text(value: Any, column: str) -> str:
    try:
        return kinds.text(value)
    except BadValue as bad:
        raise BadValue(bad.code, bad.message, bad.hint, column=column) from None


def _shared(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], tuple[list[Message], list[Message]]]:
    length = 0
    while length < min(len(chosen), len(rejected)) and chosen[length] == rejected[length]:
        length += 1
    return chosen[:length], (chosen[length:], rejected[length:])


def _shared_text(
    chosen: str, rejected: str
) -> tuple[list[Message], tuple[list[Message], list[Message]]]:
    """Split at the last blank of what both begin with, so that no word is cut."""
    pairs = zip(chosen, rejected, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    prefix = chosen[:same]
    length = max(prefix.rfind(" "), prefix.rfind("\n")) + 1
    if not chosen[:length].strip() or not chosen[length:].strip() or not rejected[length:].strip():
        return [], ([], [])
    return [message("user", chosen[:length])], (
        [message("assistant", chosen[length:])],
        [message("assistant", rejected[length:])],
    )


FORMAT = TaskFormat(
    name="preference",
    title="Preference tuning",
    description="Moves a language model towards the answers that people prefer.",
    modality="text",
    schema=pa.schema(
        [
            ID,
            pa.field("prompt", MESSAGES, nullable=False),
            pa.field("chosen", MESSAGES),
            pa.field("rejected", MESSAGES),
            pa.field("chat", pa.bool_(), nullable=False),
            pa.field("tools", pa.string()),
        ]
    ),
    shapes=(
        Shape(
            "input,preferred_output,non_preferred_output",
            (
                Column("input", "{messages, tools}.", kinds.mapping),
                Column("preferred_output", "The messages preferred.", kinds.items),
                Column("non_preferred_output", "The others.", kinds.items),
                TOOLS,
            ),
            _openai,
        ),
        Shape(
            "prompt,chosen,rejected",
            (
                Column("prompt", "Text or messages.", kinds.anything, required=False),
                Column("chosen", "The answer preferred.", kinds.anything),
                Column("rejected", "The other.", kinds.anything),
                TOOLS,
            ),
            _pair,
        ),
        Shape(
            "prompt,completion,label",
            (
                Column("prompt", "Text or messages.", kinds.anything),
                Column("completion", "The answer.", kinds.anything),
                Column("label", "Whether it is wanted: true or false.", kinds.boolean),
                TOOLS,
            ),
            _unpaired,
        ),
    ),
    formats=(
        'OpenAI\'s JSON Lines: {"input": {"messages": […]}, "preferred_output": […], '
        '"non_preferred_output": […]}',
        '{"prompt": "…", "chosen": "…", "rejected": "…"}, texts or lists of messages',
        'unpaired: {"prompt": "…", "completion": "…", "label": true}',
    ),
    metrics=("loss", "accuracy", "margin"),
    inputs=("prompt", "tools"),
    outputs=("chosen", "rejected"),
    example=({"prompt": "Say hello.", "chosen": "Hello!", "rejected": "No."},),
    example_text={
        "jsonl": '{"input": {"messages": [{"role": "user", "content": "Say hello."}]}, '
        '"preferred_output": [{"role": "assistant", "content": "Hello!"}], '
        '"non_preferred_output": [{"role": "assistant", "content": "No."}]}\n',
        "csv": "prompt,chosen,rejected\nSay hello.,Hello!,No.\n",
    },
)
