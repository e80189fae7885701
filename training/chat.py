"""Chats as the model's template renders them, and which parts of the text the assistant said.

Templates come with a model, from outside. transformers renders them in Jinja's immutable sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import (
    _compile_jinja_template,
    render_jinja_template,
)

from ingest.chat_template import CLOCK, Message, Span, Unrenderable, as_sent, clock


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None, day: str
) -> tuple[str, list[Span]]:
    """The whole chat as text, on this day, and in it the spans to learn: the assistant's turns that
    count.

    Where the template marks what the assistant generates, those are the turns. One that does not
    is rendered up to each turn and past it: the difference is the turn, its end mark included.
    Raises Unrenderable.
    """
    # A message has no members that are null, as its template's author expects.
    chat = [as_sent(message) for message in messages]
    turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    _set_clock(tokenizer, day)
    text, marked = _rendered(tokenizer, chat, tools)
    # Marks of fewer or more pieces than turns (calls apart, thoughts left out) tell no weights.
    spans = marked if len(marked) == len(turns) else [
        _by_prefixes(tokenizer, chat, tools, turn, text) for turn in turns
    ]  # fmt: skip
    learnt = [
        span
        for turn, span in zip(turns, spans, strict=True)
        if messages[turn].get("weight") != 0 and span[0] < span[1]
    ]
    return text, learnt


def _set_clock(tokenizer: PreTrainedTokenizerBase, day: str) -> None:
    """transformers gives templates the machine's own clock and takes no other; what it has compiled
    it keeps. A template that does not compile is told of where it is rendered."""
    with suppress(TemplateError):
        compiled: Any = _compile_jinja_template(tokenizer.get_chat_template())
        compiled.globals[CLOCK] = clock(day)


def _by_prefixes(
    tokenizer: PreTrainedTokenizerBase,
    chat: list[Message],
    tools: str | None,
    turn: int,
    text: str,
) -> Span:
    before, _ = _rendered(tokenizer, chat[:turn], tools, prompt=True)
    past, _ = _rendered(tokenizer, chat[: turn + 1], tools)
    if not (text.startswith(past) and past.startswith(before)):
        raise Unrenderable(
            "the model's chat template renders earlier turns otherwise once later ones follow, "
            "so the assistant's cannot be told apart"
        )
    return len(before), len(past)


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    chat: list[Message],
    tools: str | None,
    *,
    prompt: bool = False,
) -> tuple[str, list[Span]]:
    template = tokenizer.get_chat_template()
    special: dict[str, Any] = tokenizer.special_tokens_map
    marks = "generation %}" in template or "generation -%}" in template
    try:
        rendered: Any = render_jinja_template(
            conversations=[chat],
            tools=json.loads(tools) if tools else None,
            chat_template=template,
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=marks,
            **special,
        )
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise Unrenderable(f"the model's chat template refuses it ({error})") from error
    texts, spans = rendered
    return texts[0], spans[0] if marks else []
