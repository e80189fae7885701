from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import BadData
from tests.training.cases import CASES, Rows, write_rows
from tests.training.causal import BOS, EOS, MARKED, UNMARKED, tiny_llama
from training import sequences
from training.sequences import IGNORED
from training.tasks import text_generation
from training.tasks.base import Batch
from training.tasks.text_generation import TextGeneration

CASE = next(case for case in CASES if case.name == "chats")
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "5", "weight": 0},
    {"role": "user", "content": "No.\n"},
    {"role": "assistant", "content": "4\n\n!"},
    {"role": "user", "content": "Ja?"},
    {"role": "assistant", "content": "Jaß"},
]


def loaded(path: Path, template: str | None = UNMARKED, **changes: Any) -> TextGeneration:
    task = TextGeneration(CASE.spec(**changes), print)
    task.load(tiny_llama(path / "base", template=template), exact=False)
    return task


def batch_of(task: TextGeneration, path: Path, rows: Rows) -> Batch:
    file = write_rows(path / "x.arrow", CASE.task, rows)
    return task.collate(task.read(file, "training_file", lambda: None), np.arange(len(rows)))


def learnt(task: TextGeneration, batch: Batch, row: int = 0) -> str:
    """The targets of a row as text; a gap between two parts is a bar."""
    parts = [
        task.tokenizer.decode(list(tokens))
        for ignored, tokens in groupby(batch.targets[row].tolist(), lambda token: token == IGNORED)
        if not ignored
    ]
    return "|".join(parts)


def text_of(task: TextGeneration, batch: Batch, row: int = 0) -> str:
    length = int(batch.inputs["attention_mask"][row].sum())
    return str(task.tokenizer.decode(batch.inputs["input_ids"][row, :length]))


@pytest.mark.parametrize("template", [UNMARKED, MARKED])
def test_only_the_assistants_turns_that_count_are_learnt(tmp_path: Path, template: str) -> None:
    task = loaded(tmp_path, template)
    batch = batch_of(task, tmp_path, [{"id": 1, "messages": CHAT}])
    assert learnt(task, batch) == f"4\n\n!{EOS}|Jaß{EOS}"
    assert text_of(task, batch).count(BOS) == 1
    assert text_of(task, batch).startswith(f"{BOS}<system>Be brief.<user>2+2?<assistant>5{EOS}")


def test_a_base_model_without_a_template_gets_one_that_goes_with_it(tmp_path: Path) -> None:
    task = loaded(tmp_path, None)
    batch = batch_of(task, tmp_path, [{"id": 1, "messages": CHAT[:2] + CHAT[4:5]}])
    assert learnt(task, batch) == f"4\n\n!{EOS}"
    task.save(torch.nn.Module.__new__(_Unsaved), tmp_path / "out")  # type: ignore[arg-type]
    kept = (tmp_path / "out" / "chat_template.jinja").read_text()
    assert kept == task.tokenizer.chat_template


class _Unsaved(torch.nn.Module):
    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir()


def test_padding_hides_no_true_end_of_text(tmp_path: Path) -> None:
    task = loaded(tmp_path)
    assert task.tokenizer.pad_token_id == task.tokenizer.eos_token_id
    rows = [{"id": 1, "text": "a longer text"}, {"id": 2, "text": "b"}]
    batch = batch_of(task, tmp_path, rows)
    assert learnt(task, batch, 0) == f"a longer text{EOS}"
    assert learnt(task, batch, 1) == f"b{EOS}"
    assert batch.inputs["attention_mask"].sum(dim=1).tolist() == [15, 3]
    assert text_of(task, batch, 1) == f"{BOS}b{EOS}"


def test_of_a_prompt_with_its_completion_the_latter_is_learnt(tmp_path: Path) -> None:
    task = loaded(tmp_path)
    batch = batch_of(task, tmp_path, [{"id": 1, "prompt": "Q: ", "completion": "\n\n yes  "}])
    assert learnt(task, batch) == f"\n\n yes  {EOS}"
    assert text_of(task, batch) == f"{BOS}Q: \n\n yes  {EOS}"


def test_rows_of_which_nothing_is_left_to_learn_are_named(tmp_path: Path) -> None:
    task = loaded(tmp_path, max_length=20)
    long = [{"role": "user", "content": "x" * 30}, {"role": "assistant", "content": "y"}]
    rows = [{"id": 3, "text": "fine"}, {"id": 8, "messages": long}]
    with pytest.raises(BadData, match="nothing to learn within their first 20 tokens") as caught:
        batch_of(task, tmp_path, rows)
    assert caught.value.details == [{"row": 8}]


def test_rows_with_nothing_to_learn_are_counted_over_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequences, "CHUNK_ROWS", 2)
    task = loaded(tmp_path, max_length=20)
    long = [{"role": "user", "content": "x" * 30}, {"role": "assistant", "content": "y"}]
    rows: Rows = [{"id": row, "messages": long} for row in range(1, 6)]
    with pytest.raises(BadData, match=r"^5 rows hold nothing to learn within") as caught:
        batch_of(task, tmp_path, rows)
    assert "larger `max_length`" in str(caught.value.hint)
    short = [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]
    silent = loaded(tmp_path, UNMARKED.replace("{{ eos_token }}", ""), max_length=20)
    rows[1], rows[3] = {"id": 2, "text": "fine"}, {"id": 4, "messages": short}
    with pytest.raises(BadData, match=r"^4 rows hold nothing to learn, the first") as caught:
        batch_of(silent, tmp_path, rows)
    assert caught.value.details == [{"row": row} for row in (1, 3, 4, 5)]


@pytest.mark.parametrize("template", [UNMARKED, MARKED])
def test_a_template_that_writes_the_date_writes_that_of_the_job(
    tmp_path: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the clock says, in every attempt; one that came with an older spec has its own."""
    dated = template.replace("{{ bos_token }}", "{{ bos_token }}{{ strftime_now('%d %b %Y') }}")
    monkeypatch.setattr(text_generation, "today", lambda: "2031-05-06")
    for day, written in (("2024-02-29", "29 Feb 2024"), (None, "06 May 2031")):
        task = loaded(tmp_path, dated, day=day)
        batch = batch_of(task, tmp_path, [{"id": 1, "messages": CHAT}])
        assert text_of(task, batch).startswith(f"{BOS}{written}<system>Be brief.")
        assert learnt(task, batch) == f"4\n\n!{EOS}|Jaß{EOS}"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "must alternate"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe|refuses"),
        ("{{ messages|length }}{{ messages[-1].content }}", "cannot be told apart"),
    ],
)
def test_templates_that_refuse_reach_out_or_rewrite_fail_with_the_row(
    tmp_path: Path, template: str, reason: str
) -> None:
    task = loaded(tmp_path, template)
    with pytest.raises(BadData, match=reason) as caught:
        batch_of(task, tmp_path, [{"id": 6, "messages": CHAT[:3] + CHAT[5:]}])
    assert caught.value.details == [{"row": 6}]


def test_tools_and_calls_reach_the_template_as_objects(tmp_path: Path) -> None:
    template = (
        "{{ tools[0].function.name }}{% for m in messages %}{% if m.tool_calls %}"
        "{{ m.tool_calls[0].function.arguments.city }}{% endif %}{{ m.content }}{% endfor %}"
    )
    task = loaded(tmp_path, template)
    call = {"type": "function", "function": {"name": "rain", "arguments": '{"city": "Rome"}'}}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": json.dumps([call])},
    ]
    tools = json.dumps([{"type": "function", "function": {"name": "rain"}}])
    batch = batch_of(task, tmp_path, [{"id": 1, "messages": messages, "tools": tools}])
    assert text_of(task, batch) == "rain?Rome"
    assert learnt(task, batch) == "Rome"


@pytest.mark.parametrize("plain_head", [True, False])
def test_each_place_tells_the_token_after_it(tmp_path: Path, plain_head: bool) -> None:
    task = loaded(tmp_path)
    model = task.load(tmp_path / "base", exact=False).eval()
    assert task.plain_head
    task.plain_head = plain_head
    batch = batch_of(task, tmp_path, [{"id": 1, "prompt": "ab", "completion": "c"}])
    tokens = batch.inputs["input_ids"][0]
    with torch.no_grad():
        rated = model(input_ids=tokens[None]).logits[0].log_softmax(dim=-1)
    loss = task.loss(model, batch)
    # BOS a b c EOS: what stands before c and before EOS tells them.
    expected = -sum(rated[place - 1, tokens[place]] for place in (3, 4))
    assert loss.count == 2
    assert loss.sum.item() == pytest.approx(float(expected), rel=1e-6)
    right = sum(int(rated[place - 1].argmax() == tokens[place]) for place in (3, 4))
    assert float(loss.train_sums["mean_token_accuracy"]) == right
    assert len(tokens) == 5
