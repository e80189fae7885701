"""Rows as the model will see them: rendered, in tokens, with what is learnt and what is cut off.

This shows what `training/tasks` makes of a row. Where masks are drawn anew each epoch, one such
draw is shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest.chat_template import ChatTemplate, Span, Unrenderable, today
from ingest.model_folder import ModelFolder
from ingest.tasks.base import Row, TaskFormat

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SHOWN_CHARACTERS = 2000
"""Of one part."""
MASKED_SHARE = 0.15

Part = dict[str, Any]


@dataclass(frozen=True)
class _Sequence:
    name: str
    text: str
    learnt: list[Span]
    special: bool = True
    """Whether the tokenizer adds its special tokens; a chat template has written them."""


def seen(
    rows: Sequence[Row],
    format: TaskFormat,
    model: ModelFolder,
    tokenizer: Tokenizer | None,
    max_length: int | None,
) -> list[dict[str, Any]]:
    """For each row `{id, sequences: [{name, parts, tokens, cut}]}`, or `{id, error}`.

    A part is `{text, learnt}`; `cut` is how many of the tokens are beyond `max_length`.
    """
    try:
        template = ChatTemplate(model.template, model.special, today())
    except Unrenderable as error:
        return [{"id": row["id"], "error": str(error)} for row in rows]
    read = _READERS.get(format.name)
    shown = []
    for row in rows:
        try:
            sequences = list(read(row, template) if read else _columns(row, format))
        except Unrenderable as error:
            shown.append({"id": row["id"], "error": str(error)})
            continue
        if format.name == "fill-mask" and tokenizer is not None:
            sequences = [_masked(sequence, tokenizer, row["id"]) for sequence in sequences]
        told = [_told(sequence, tokenizer, max_length) for sequence in sequences]
        shown.append({"id": row["id"], "sequences": told})
    return shown


def _generation(row: Row, template: ChatTemplate) -> Iterator[_Sequence]:
    if row["messages"] is not None:
        text, spans = template.render(row["messages"], row["tools"])
        yield _Sequence("chat", text, spans, special=False)
    elif row["text"] is not None:
        yield _Sequence("text", row["text"], [(0, len(row["text"]))])
    else:
        yield _completion("completion", row["prompt"] or "", row["completion"])


def _preference(row: Row, template: ChatTemplate) -> Iterator[_Sequence]:
    for side in ("chosen", "rejected"):
        if not row[side]:
            continue
        if row["chat"]:
            asked = [
                item | {"weight": 0} if item["role"] == "assistant" else item
                for item in row["prompt"]
            ]
            text, spans = template.render(asked + row[side], row["tools"])
            yield _Sequence(side, text, spans, special=False)
        else:
            prompt = "".join(item["content"] for item in row["prompt"])
            yield _completion(side, prompt, row[side][0]["content"])


def _completion(name: str, prompt: str, completion: str) -> _Sequence:
    return _Sequence(name, prompt + completion, [(len(prompt), len(prompt) + len(completion))])


_READERS: dict[str, Callable[[Row, ChatTemplate], Iterator[_Sequence]]] = {
    "text-generation": _generation,
    "preference": _preference,
}


def _columns(row: Row, format: TaskFormat) -> Iterator[_Sequence]:
    """What a task that renders nothing gives: its columns, of which the outputs are learnt."""
    for name in (*format.inputs, *format.outputs):
        text = _text(row[name])
        if text is not None:
            spans = [(0, len(text))] if name in format.outputs else []
            yield _Sequence(name, text, spans)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list):
        return " ".join(_text(item) or "" for item in value)
    return str(value)


def _masked(sequence: _Sequence, tokenizer: Tokenizer, row: int) -> _Sequence:
    """One draw of the tokens that are to be guessed, the same for a row whenever it is shown."""
    encoded = tokenizer.encode(sequence.text, add_special_tokens=False)
    draw = random.Random(row)  # noqa: S311
    spans = [span for span in encoded.offsets if draw.random() < MASKED_SHARE]
    return _Sequence(sequence.name, sequence.text, spans)


def _told(
    sequence: _Sequence, tokenizer: Tokenizer | None, max_length: int | None
) -> dict[str, Any]:
    told: dict[str, Any] = {"name": sequence.name, "parts": list(_parts(sequence))}
    if tokenizer is not None:
        encoded = tokenizer.encode(sequence.text, add_special_tokens=sequence.special)
        told["tokens"] = len(encoded.ids)
        told["cut"] = max(0, len(encoded.ids) - max_length) if max_length is not None else 0
    return told


def _parts(sequence: _Sequence) -> Iterator[Part]:
    start = 0
    for first, last in sequence.learnt:
        if start < first:
            yield _part(sequence.text[start:first], learnt=False)
        yield _part(sequence.text[first:last], learnt=True)
        start = last
    if start < len(sequence.text):
        yield _part(sequence.text[start:], learnt=False)


def _part(text: str, *, learnt: bool) -> Part:
    shown = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
    return {"text": shown, "learnt": learnt}
