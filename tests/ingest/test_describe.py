"""The closer look: languages, tokens, rows as the model will see them; all of it without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from core.errors import Unprocessable
from ingest import chat_template, model_folder, tasks
from ingest.chat_template import PLAIN_TEMPLATE, ChatTemplate, Unrenderable
from ingest.describe import describe
from ingest.languages import is_mixed, languages
from ingest.prepare import prepare
from tests.ingest.make import lines, sound, zipped
from tests.ingest.test_report import finding
from training import chat as trained

ENGLISH = "The film is quiet and slow at first, but it stays with you for a long time afterwards."
GERMAN = "Der Film ist am Anfang ruhig und langsam, aber er bleibt einem noch lange im Gedächtnis."
CHATML = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED = (
    "{{ bos_token }}{% for message in messages -%}\n  {% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}[{{ message.content | trim }}]{% endif %}\n{%- endfor %}"
)
TOOLS = (
    "{{ tools | tojson(indent=2) if tools else 'none' }}"
    "{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.x }}"
    "{% continue %}{% endif %}{{ m.role }}: {{ m.content }};{% endfor %}"
)
DATED = "{{ strftime_now('%d %b %Y') }}" + MARKED
CHAT = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": "Capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Ghana?"},
    {"role": "assistant", "content": "Accra.", "weight": 0},
]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder whose tokenizer has a token for each word and whose model takes six."""
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"chat_template": MARKED, "eos_token": {"content": "</s>"}, "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text('{"max_position_embeddings": 6}')
    return folder


def described(tmp_path: Path, content: bytes, task: str, **options: Any) -> dict[str, Any]:
    source = tmp_path / "upload"
    source.write_bytes(content)
    out = tmp_path / "out.arrow"
    prepared = prepare(source, task, out=out, role="training", name="train")
    return describe(prepared, out, "training", **options).report


def test_chats_as_the_model_sees_them(tmp_path: Path, model: Path) -> None:
    report = described(tmp_path, lines({"messages": CHAT}), "text-generation", model=model)
    (row,) = report["profile"]["seen"]
    (sequence,) = row["sequences"]
    assert [(part["text"], part["learnt"]) for part in sequence["parts"]] == [
        ("<s>[Be brief.][Capital of France?]", False),
        ("Paris.</s>", True),
        ("[And of Ghana?]Accra.</s>", False),
    ]
    assert (sequence["tokens"], sequence["cut"]) == (6, 0)


@pytest.mark.parametrize("template", [CHATML, MARKED, PLAIN_TEMPLATE, TOOLS, DATED])
@pytest.mark.parametrize("tools", [None, '[{"type":"function","function":{"name":"f"}}]'])
def test_templates_render_as_in_training(template: str, tools: str | None) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"?": 0}, unk_token="?")),
        eos_token="</s>",
        bos_token="<s>",
    )
    tokenizer.chat_template = template
    ours = ChatTemplate(template, {"eos_token": "</s>", "bos_token": "<s>"}, "2024-02-29")
    called = [*CHAT[:2], {"role": "assistant", "content": None, "tool_calls": json.dumps([CALL])}]
    for chat in (CHAT, CHAT[1:3], [*called, {"role": "tool", "content": "é"}]):
        rendered = ours.render(chat, tools)
        assert rendered == trained.render(tokenizer, chat, tools, "2024-02-29")
        assert ("29 Feb 2024" in rendered[0]) is (template == DATED)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ ''.__class__.__mro__ }}", "refuses it"),
        ("{{ messages.append(1) }}", "refuses it"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ 'x' * 3000000 }}", "too much"),
        ("{% for a in range(9999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "longer"),
        ("{% if %}", "is not one"),
        ("{{ messages[9].content }}", "refuses it"),
        ("{{ messages | length }}", "cannot be told apart"),
    ],
)  # fmt: skip
def test_templates_that_do_harm_or_fail(
    template: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.2)
    with pytest.raises(Unrenderable, match=says):
        ChatTemplate(template, {}, "2024-02-29").render(CHAT, None)


def test_a_template_that_fails_is_told_row_by_row(tmp_path: Path, model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ raise_exception('no system message') }}")
    report = described(tmp_path, lines({"messages": CHAT}), "text-generation", model=model)
    (row,) = report["profile"]["seen"]
    assert row["id"] == 1
    assert "no system message" in row["error"]


def test_preferences_and_completions(tmp_path: Path, model: Path) -> None:
    pair = {"prompt": "a ", "chosen": "b", "rejected": "c"}
    report = described(tmp_path, lines(pair), "preference", model=model)
    (row,) = report["profile"]["seen"]
    assert [sequence["name"] for sequence in row["sequences"]] == ["chosen", "rejected"]
    assert row["sequences"][1]["parts"][-1] == {"text": "c", "learnt": True}
    (row,) = described(
        tmp_path, lines({"prompt": "a ", "completion": "b"}), "text-generation", model=model
    )["profile"]["seen"]
    assert row["sequences"][0]["parts"] == [
        {"text": "a ", "learnt": False},
        {"text": "b", "learnt": True},
    ]


def test_masks_are_shown(tmp_path: Path, model: Path) -> None:
    report = described(tmp_path, lines({"text": "word " * 60}), "fill-mask", model=model)
    (row,) = report["profile"]["seen"]
    parts = row["sequences"][0]["parts"]
    masked = [part["text"] for part in parts if part["learnt"]]
    assert set(masked) == {"word"}
    assert 2 <= len(masked) <= 20
    assert "".join(part["text"] for part in parts) == "word " * 60


def test_tokens_and_what_is_cut(tmp_path: Path, model: Path) -> None:
    rows = [{"text": "word " * many, "label": "ab"[many % 2]} for many in (3, 9, 5, 8)]
    report = described(tmp_path, lines(*rows), "text-classification", model=model)
    assert report["profile"]["tokens"]["tokens"]["max"] == 9
    assert report["profile"]["estimate"]["tokens_per_epoch"] == 25
    long = finding(report, "rows_too_long")
    assert (long["count"], long["places"]) == (2, [{"line": 2}, {"line": 4}])
    assert "5 tokens in all" in long["message"]
    report = described(tmp_path, lines(*rows), "text-classification", model=model, max_length=8)
    assert finding(report, "rows_too_long")["count"] == 2, "the model's own limit is smaller"
    report = described(tmp_path, lines(*rows), "text-classification", model=model, max_length=4)
    assert finding(report, "rows_too_long")["count"] == 3


def test_the_estimate_is_what_the_service_would_do(tmp_path: Path) -> None:
    rows = [{"text": f"{n}", "label": "ab"[n % 2]} for n in range(1000)]
    estimate = described(tmp_path, lines(*rows), "text-classification")["profile"]["estimate"]
    assert estimate == {"batch_size": 16, "n_epochs": 3, "steps_per_epoch": 63, "steps": 189}


def test_languages(tmp_path: Path) -> None:
    rows = [{"source": ENGLISH, "target": GERMAN}] * 5
    report = described(tmp_path, lines(*rows), "translation")
    assert report["profile"]["languages"] == {"source": {"en": 5}, "target": {"de": 5}}
    assert "mixed_languages" not in {item["code"] for item in report["findings"]}
    rows = [{"text": (ENGLISH, GERMAN)[n % 3 == 0]} for n in range(30)]
    report = described(tmp_path, lines(*rows), "fill-mask")
    assert report["profile"]["languages"]["text"] == {"en": 20, "de": 10}
    mixed = finding(report, "mixed_languages")
    assert "en 67%, de 33%" in mixed["message"]
    assert languages(["ok", "12 34 56 " * 20]) == {}
    assert not is_mixed({"en": 50, "de": 1})


def test_wrong_encodings(tmp_path: Path) -> None:
    right = ["Ä, Ö and Ü", "SÃO PAULO", "25 °C", "“quoted” — so", "日本"]
    wrong = [text.encode().decode("cp1252") for text in ("é", "naïve", "it’s")] + ["lost: \ufffd"]
    rows = [{"text": text} for text in (*right, *wrong)]
    report = described(tmp_path, lines(*rows), "fill-mask")
    assert finding(report, "garbled_text")["places"] == [{"line": n} for n in (6, 7, 8, 9)]
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": wrong[0]}]
    report = described(tmp_path, lines({"messages": CHAT}, {"messages": chat}), "text-generation")
    assert finding(report, "garbled_text")["places"] == [{"line": 2}]


def test_answers_that_say_nothing(tmp_path: Path) -> None:
    def answered(content: str | None, **rest: Any) -> dict[str, Any]:
        user = {"role": "user", "content": " "}
        return {"messages": [user, {"role": "assistant", "content": content} | rest]}

    rows = [answered("yes"), answered(" \n"), answered(None, tool_calls=[CALL]), answered("")]
    report = described(tmp_path, lines(*rows), "text-generation")
    assert finding(report, "blank_answers")["places"] == [{"line": 2}, {"line": 4}]


def test_media_have_sizes_and_no_tokens(tmp_path: Path, model: Path) -> None:
    files = {"a/1.wav": sound(0.5), "b/2.wav": sound(1.5)}
    profile = described(tmp_path, zipped(files), "audio-classification", model=model)["profile"]
    assert profile["numbers"]["seconds"]["sum"] == 2.0
    assert "tokens" not in profile


@pytest.mark.parametrize("task", [f.name for f in tasks.all_formats() if f.modality == "text"])
def test_every_task(tmp_path: Path, model: Path, task: str) -> None:
    rows = list(tasks.get(task).example)
    report = described(tmp_path, lines(*rows), task, model=model)
    assert [row["id"] for row in report["profile"]["seen"]] == list(range(1, len(rows) + 1))
    assert report["profile"]["tokens"]["rows_counted"] == len(rows)


def test_limits_of_models(model: Path) -> None:
    assert model_folder.read(model).max_length == 6
    (model / "config.json").write_text(
        '{"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}'
    )
    assert model_folder.read(model).max_length == 512
    (model / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert model_folder.read(model).max_length == 512
    assert model_folder.read(model).template == PLAIN_TEMPLATE


def test_a_broken_tokenizer_is_the_models_fault(tmp_path: Path, model: Path) -> None:
    (model / "tokenizer.json").write_text("{")
    with pytest.raises(Unprocessable, match="tokenizer"):
        described(tmp_path, lines({"text": "a"}), "fill-mask", model=model)


def test_the_child_loads_no_torch(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "upload"
    source.write_bytes(lines({"messages": CHAT}, {"messages": CHAT}))
    code = (
        "import sys, msgspec; from ingest.child import Allowance, Limits, Request, _answer;"
        f"reply = _answer(Request(source={str(source)!r}, task=None, role='training',"
        f"out={str(tmp_path / 'out')!r}, allowance=Allowance(), limits=Limits(),"
        f"name='a', model={str(model)!r}));"
        "assert reply.prepared and reply.prepared.report['profile']['seen'], reply;"
        "assert not {'torch', 'transformers', 'sqlalchemy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
