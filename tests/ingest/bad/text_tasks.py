"""Rows that are well-formed and wrong for their task."""

from __future__ import annotations

import json
from typing import Any

from tests.ingest.bad import Bad
from tests.ingest.make import lines

USER = {"role": "user", "content": "hi"}
BOT = {"role": "assistant", "content": "hello"}


def row(task: str, name: str, value: dict[str, Any], code: str, says: str) -> Bad:
    return Bad(f"{task}: {name}", lines(value), code, 1, says, task=task)


def chat(name: str, *messages: Any, code: str = "invalid_message", says: str) -> Bad:
    return row("text-generation", name, {"messages": list(messages)}, code, says)


CHATS = [
    chat("no messages", code="empty_list", says="no messages"),
    chat("no assistant", USER, code="no_assistant_message", says="no assistant"),
    chat("assistants without weight", USER, BOT | {"weight": 0}, code="no_assistant_message",
         says="weight is not 0"),
    chat("a text as message", "hi", says="message 1: an object expected"),
    chat("no role", {"content": "hi"}, BOT, says="message 1: the role is None"),
    chat("an unknown role", {"role": "bot", "content": "hi"}, BOT, says="the role is 'bot'"),
    chat("no content", USER, {"role": "assistant"}, says="message 2: the assistant message has no"),
    chat("content is a number", USER, {"role": "assistant", "content": 5}, says="a number"),
    chat("an image", {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, BOT,
         code="unsupported_content", says="'image_url'"),
    chat("a weight of two", USER, BOT | {"weight": 2}, says="0 or 1"),
    chat("a weighted user", USER | {"weight": 1}, BOT, says="a user message has a weight"),
    chat("calls of a user", USER | {"tool_calls": [{"function": {"name": "f"}}]}, BOT,
         says="tool_calls"),
    chat("calls that are no list", USER, BOT | {"tool_calls": {"function": {}}}, says="tool_calls"),
    chat("a name that is a number", USER | {"name": 5}, BOT, says="`name` must be text"),
    chat("an unknown sender", {"from": "martian", "value": "x"}, BOT, says="`from` is 'martian'"),
    chat("a sender without value", {"from": "human"}, BOT, says="no `value`"),
    row("text-generation", "messages in text", {"messages": "hi"}, "wrong_type", "a list expected"),
    row("text-generation", "broken messages in text", {"messages": "[{"}, "invalid_json", "JSON"),
    row("text-generation", "tools that are names", {"messages": [USER, BOT], "tools": ["f"]},
        "invalid_tools", "list of tool definitions"),
    row("text-generation", "no output", {"instruction": "do", "output": ""}, "empty_text", "empty"),
    row("text-generation", "half a chat", {"prompt": [USER], "completion": "x"}, "wrong_type",
        "both"),
    row("text-generation", "no completion", {"prompt": "x", "completion": " "}, "empty_text",
        "column `completion`"),
    Bad("text-generation: other columns", lines({"question": "x", "reply": "y"}),
        "missing_columns", None, "found `question`, `reply`", task="text-generation"),
]  # fmt: skip

SPAN = {"start": 0, "end": 2, "label": "ORG"}
CONTEXT = {"context": "Ada was born in London. London!", "question": "Where?"}
PAIR = {"prompt": "hi", "chosen": "yes", "rejected": "no"}


def tagged(name: str, value: dict[str, Any], code: str, says: str) -> Bad:
    return row("token-classification", name, value, code, says)


def asked(name: str, value: dict[str, Any], code: str, says: str) -> Bad:
    return row("question-answering", name, CONTEXT | value, code, says)


def preferred(name: str, value: dict[str, Any], code: str, says: str) -> Bad:
    return row("preference", name, value, code, says)


ROWS = [
    tagged("lengths differ", {"tokens": ["a", "b"], "tags": ["O"]}, "length_mismatch", "2 tokens"),
    tagged("no tokens", {"tokens": [], "tags": []}, "empty_list", "no tokens"),
    tagged("an empty token", {"tokens": ["a", ""], "tags": ["O", "O"]}, "empty_text", "item 2"),
    tagged("tokens are text", {"tokens": "a b", "tags": ["O"]}, "wrong_type", "a list expected"),
    tagged("a tag is a fraction", {"tokens": ["a"], "tags": [0.5]}, "wrong_type", "item 1"),
    tagged("a span beyond", {"text": "EU", "spans": [SPAN | {"end": 9}]}, "invalid_span", "0…9"),
    tagged("a span of nothing", {"text": "EU", "spans": [SPAN | {"start": 2}]}, "invalid_span",
           "2…2"),
    tagged("a span of blanks", {"text": "   EU", "spans": [SPAN]}, "invalid_span", "no word"),
    tagged("a span without label", {"text": "EU", "spans": [{"start": 0, "end": 2}]},
           "invalid_span", "{start, end, label}"),
    tagged("spans that overlap", {"text": "EU army", "spans": [SPAN, SPAN | {"end": 7}]},
           "overlapping_spans", "character 0"),
    asked("an answer elsewhere", {"answers": {"text": ["London"], "answer_start": [3]}},
          "answer_not_in_context", "It stands at 16"),
    asked("an answer not there", {"answers": {"text": ["Paris"], "answer_start": [3]}},
          "answer_not_in_context", "not in the context"),
    asked("an answer before the text", {"answers": {"text": ["."], "answer_start": [-1]}},
          "answer_not_in_context", "-1"),
    asked("an answer twice there", {"answer": "London"}, "ambiguous_answer", "more than once"),
    asked("an empty answer", {"answers": {"text": [""], "answer_start": [0]}}, "empty_text",
          "empty"),
    asked("starts missing", {"answers": {"text": ["London"], "answer_start": []}},
          "invalid_answers", "known forms"),
    asked("answers are a number", {"answers": 16}, "invalid_answers", "known forms"),
    asked("no question", {"question": "", "answer": "Ada"}, "empty_text", "column `question`"),
    Bad("question-answering: a broken article", '{"data": [{"paragraphs": [{"context": "x"}]}]}',
        "invalid_answers", 1, "`qas`", task="question-answering"),
    row("translation", "three languages", {"translation": {"en": "a", "de": "b", "fr": "c"}},
        "invalid_translation", "found 3"),
    row("translation", "an empty side", {"translation": {"en": "a", "d": ""}}, "empty_text", "d:"),
    row("translation", "no object", {"translation": ["a", "b"]}, "wrong_type", "an object"),
    row("summarization", "no summary", {"document": "a", "summary": ""}, "empty_text", "`summary`"),
    preferred("equal answers", PAIR | {"chosen": "no"}, "no_preference", "equals the other"),
    preferred("no prompt", {"chosen": "yes", "rejected": "no"}, "no_prompt", "no `prompt`"),
    preferred("an empty answer", PAIR | {"rejected": ""}, "empty_text", "column `rejected`"),
    preferred("half in messages", PAIR | {"chosen": [BOT]}, "wrong_type", "column `rejected`"),
    preferred("a text prompt for messages", {"prompt": "hi", "chosen": [BOT], "rejected": [BOT]},
              "wrong_type", "column `prompt`"),
    preferred("an unclear label", {"prompt": "a", "completion": "b", "label": "maybe"},
              "wrong_type", "true or false"),
    preferred("no input messages", {"input": {}, "preferred_output": [BOT],
                                    "non_preferred_output": [BOT]}, "wrong_type", "null"),
    row("feature-extraction", "no positive", {"anchor": "a", "positive": ""}, "empty_text", "emp"),
    row("feature-extraction", "a score beyond any cosine",
        {"sentence1": "a", "sentence2": "b", "score": 4.5}, "score_out_of_range", "divide them"),
    row("feature-extraction", "a score in words",
        {"sentence1": "a", "sentence2": "b", "score": "x"}, "wrong_type", "a number expected"),
    row("feature-extraction", "no negatives", {"anchor": "a", "positive": "b", "negative": []},
        "empty_list", "empty"),
    Bad("a table as images", b"text,label\na,b\n", "unsupported_format", None, "csv file",
        task="image-classification"),
    Bad("JSON as recordings", json.dumps([{"text": "a"}]), "unsupported_format", None, "json file",
        task="automatic-speech-recognition"),
]  # fmt: skip

CASES = [*CHATS, *ROWS]
