"""A chat as a model's template renders it, in Jinja's immutable sandbox, within limits.

Templates come with a model, from outside. What they may use is what transformers gives them, so
that what is shown is what is trained on (transformers/utils/chat_template_utils.py).
"""

from __future__ import annotations

import json
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, Any]
Span = tuple[int, int]

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] + ':\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ (message['content'] or '') + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] or '' }}{% endif %}"
    "{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)
"""For a base model that has no template. It goes with the result, so that both use the same."""

MAX_CHARACTERS = 1_000_000
MAX_SECONDS = 2.0


CLOCK = "strftime_now"
"""What a template that writes the date asks for it by."""


def today() -> str:
    """The present day, by UTC, as ISO 8601 has it."""
    return datetime.now(UTC).date().isoformat()


def clock(day: str) -> Callable[[str], str]:
    """A template's `strftime_now` that stands still where this day begins.

    A chat would else be another text tomorrow: a job that goes on after midnight would learn from
    other tokens than before, and tokens that were kept would not be those of an equal chat.
    """
    begins = datetime.fromisoformat(day)
    return lambda form: begins.strftime(form)


class Unrenderable(ValueError):
    """A chat that the template refuses, or whose assistant turns cannot be found in its text."""


class _Generation(Extension):
    """`{% generation %}` around what the assistant says: marked here, and the marks taken out."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_marked")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        mark = self.environment.globals["mark"]
        return f"{mark}{caller()}{mark}"


class ChatTemplate:
    """A model's template, compiled, on this day. Raises Unrenderable if it cannot be."""

    def __init__(self, source: str, special: dict[str, str], day: str) -> None:
        self._mark = f"\ue000{secrets.token_hex(8)}\ue001"
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {
            "mark": self._mark,
            "raise_exception": _refuse,
            CLOCK: clock(day),
        }
        self._special = special
        self._marks = "generation %}" in source or "generation -%}" in source
        try:
            self._template = environment.from_string(source)
        except (TemplateError, RecursionError) as error:
            raise Unrenderable(f"the model's chat template is not one ({error})") from error

    def render(self, messages: Sequence[Message], tools: str | None) -> tuple[str, list[Span]]:
        """The chat as text, and in it the spans to learn: the assistant's turns that count."""
        chat = [as_sent(message) for message in messages]
        turns = [place for place, item in enumerate(messages) if item["role"] == "assistant"]
        text, spans = self._rendered(chat, tools)
        if len(spans) != len(turns):
            spans = [self._by_prefixes(chat, tools, turn, text) for turn in turns]
        return text, [
            span
            for turn, span in zip(turns, spans, strict=True)
            if messages[turn].get("weight") != 0 and span[0] < span[1]
        ]

    def _by_prefixes(self, chat: list[Message], tools: str | None, turn: int, text: str) -> Span:
        before, _ = self._rendered(chat[:turn], tools, prompt=True)
        past, _ = self._rendered(chat[: turn + 1], tools)
        if not (text.startswith(past) and past.startswith(before)):
            raise Unrenderable(
                "the model's chat template renders earlier turns otherwise once later ones "
                "follow, so the assistant's cannot be told apart"
            )
        return len(before), len(past)

    def _rendered(
        self, chat: list[Message], tools: str | None, *, prompt: bool = False
    ) -> tuple[str, list[Span]]:
        parts, size = [], 0
        try:
            with _within_time():
                for part in self._template.generate(
                    messages=chat,
                    tools=json.loads(tools) if tools else None,
                    documents=None,
                    add_generation_prompt=prompt,
                    **self._special,
                ):
                    size += len(part)
                    if size > MAX_CHARACTERS:
                        raise Unrenderable("the model's chat template makes too much of it")
                    parts.append(part)
        except MemoryError:
            raise Unrenderable("the model's chat template needs too much memory") from None
        except (TemplateError, TypeError, ValueError, KeyError, ArithmeticError) as error:
            if isinstance(error, Unrenderable):
                raise
            raise Unrenderable(f"the model's chat template refuses it ({error})") from error
        pieces = "".join(parts).split(self._mark)
        text, spans = pieces[0], []
        for index, piece in enumerate(pieces[1:]):
            if index % 2 == 0:
                spans.append((len(text), len(text) + len(piece)))
            text += piece
        return text, spans if self._marks else []


@contextmanager
def _within_time() -> Iterator[None]:
    """Break off what takes longer than MAX_SECONDS. Only a main thread can be broken off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(_: int, __: FrameType | None) -> None:
        raise Unrenderable(f"the model's chat template takes longer than {MAX_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _to_json(value: Any, indent: int | None = None, **rest: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, **rest)


def _refuse(message: str) -> str:
    raise TemplateError(message)


def as_sent(message: Message) -> Message:
    """A message has no members that are null, as its template's author expects."""
    known = {key: value for key, value in message.items() if value is not None and key != "weight"}
    known.setdefault("content", "")
    if "tool_calls" in known:
        known["tool_calls"] = [_call(call) for call in json.loads(known["tool_calls"])]
    return known


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as an object, which templates expect, not as OpenAI's text."""
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"])
        except ValueError:
            return call
    return call | {"function": function}
