"""Causal language modelling: chats, instructions, prompts with completions, plain text."""

from __future__ import annotations

import pyarrow as pa

from ingest import kinds
from ingest.messages import MESSAGES, message, parse, require_answer, tools_text
from ingest.problems import BadValue
from ingest.tasks.base import ID, Column, Row, Shape, TaskFormat

TOOLS = Column("tools", "Tool definitions, as OpenAI has them.", kinds.anything, required=False)


def _chat(row: Row) -> Row:
    messages = parse(row["messages"], "messages")
    require_answer(messages, "messages")
    return {"messages": messages, "tools": tools_text(row.get("tools"))}


def _sharegpt(row: Row) -> Row:
    messages = parse(row["conversations"], "conversations")
    if row.get("system"):
        messages.insert(0, message("system", row["system"]))
    require_answer(messages, "conversations")
    return {"messages": messages, "tools": tools_text(row.get("tools"))}


def _alpaca(row: Row) -> Row:
    """The input, where there is one, follows the instruction after a blank line."""
    asked = row["instruction"] + (f"\n\n{row['input']}" if row.get("input") else "")
    messages = [message("user", asked), message("assistant", row["output"])]
    if row.get("system"):
        messages.insert(0, message("system", row["system"]))
    return {"messages": messages}


def _completion(row: Row) -> Row:
    """Texts are kept as they are, to be joined without a template; messages are one chat."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        messages = parse(prompt, "prompt")
        # Only the completion is learnt, so the prompt's own assistant turns weigh nothing.
        asked = [item | {"weight": 0} if item["role"] == "assistant" else item for item in messages]
        answer = parse(completion, "completion")
        require_answer(answer, "completion")
        return {"messages": asked + answer, "tools": tools_text(row.get("tools"))}
    if not isinstance(prompt, str):
        raise BadValue(
            "wrong_type", "prompt and completion must both be text, or both messages",
            column="prompt",
        )  # fmt: skip
    try:
        return {"prompt": prompt, "completion": kinds.text(completion)}
    except BadValue as bad:
        raise BadValue(bad.code, bad.message, bad.hint, column="completion") from None


FORMAT = TaskFormat(
    name="text-generation",
    title="Text generation",
    description="Teaches a language model to answer, to follow instructions, or your texts.",
    modality="text",
    schema=pa.schema(
        [
            ID,
            pa.field("messages", MESSAGES),
            pa.field("tools", pa.string()),
            pa.field("prompt", pa.string()),
            pa.field("completion", pa.string()),
            pa.field("text", pa.string()),
        ]
    ),
    shapes=(
        Shape(
            "messages",
            (Column("messages", "The chat, as OpenAI has it.", kinds.items), TOOLS),
            _chat,
        ),
        Shape(
            "instruction,input,output",
            (
                Column("instruction", "What to do.", kinds.text),
                Column("input", "What to do it with.", kinds.any_text, required=False),
                Column("output", "The answer.", kinds.text, aliases=("response",)),
                Column("system", "The system message.", kinds.text, required=False),
            ),
            _alpaca,
        ),
        Shape(
            "conversations",
            (
                Column("conversations", "ShareGPT's {from, value}.", kinds.items),
                Column("system", "The system message.", kinds.text, required=False),
                TOOLS,
            ),
            _sharegpt,
        ),
        Shape(
            "prompt,completion",
            (
                Column("prompt", "What stands before.", kinds.anything),
                Column("completion", "What is learnt.", kinds.anything),
                TOOLS,
            ),
            _completion,
        ),
        Shape(
            "text",
            (Column("text", "The text.", kinds.text, aliases=("content",)),),
        ),
    ),
    formats=(
        'chats, JSON Lines: {"messages": [{"role": "user", "content": "…"}, …], "tools": […]}',
        'alpaca: {"instruction": "…", "input": "…", "output": "…"}',
        'ShareGPT: {"conversations": [{"from": "human", "value": "…"}, …]}',
        'prompts: {"prompt": "…", "completion": "…"}, as text without a template',
        'continued pretraining: {"text": "…"}, or plain text with one passage a line',
    ),
    metrics=("loss", "perplexity", "mean_token_accuracy"),
    inputs=("messages", "tools", "prompt", "text"),
    outputs=("completion",),
    example=(
        {
            "messages": [
                {"role": "user", "content": "Capital of France?"},
                {"role": "assistant", "content": "Paris."},
            ]
        },
    ),
    example_text={
        "jsonl": '{"messages": [{"role": "user", "content": "Capital of France?"}, '
        '{"role": "assistant", "content": "Paris."}]}\n',
        "csv": "instruction,output\nName the capital of France.,Paris.\n",
        "txt": "Paris is the capital of France.\n",
    },
    plain_text="lines",
)
