from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers
from transformers.pipelines import PIPELINE_REGISTRY

from models.tasks import TRAINABLE
from tests.training.material import JobFolder, of_type, run, spec, texts, write_arrow
from training.export import model_card
from training.state import LossCurve, RunState
from training.tasks.text_classification import TextClassification

PLAIN_TRANSFORMERS = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, texts = sys.argv[1], json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder)
with torch.no_grad():
    logits = [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in texts]
print(json.dumps({"logits": logits, "labels": [model.config.id2label[i] for i in range(2)]}))
"""


def test_plain_transformers_gives_the_engines_logits(folder: JobFolder) -> None:
    run(folder.job(spec(total_steps=12, eval_every=6)))
    output = folder.path / "output"
    rows = [*texts(20, seed=5), (21, "unheard words, [PAD] and all", None, "negative")]
    answer = subprocess.run(
        [sys.executable, "-c", PLAIN_TRANSFORMERS, str(output)],
        input=json.dumps([row[1] for row in rows]),
        capture_output=True,
        text=True,
        check=True,
    )
    plain = json.loads(answer.stdout.splitlines()[-1])

    task = TextClassification(spec(), print)
    model = task.load(output, exact=True).eval()
    examples = task.read(write_arrow(folder.path / "x.arrow", rows), "training_file", lambda: None)
    batch = task.collate(examples, np.arange(len(rows)))
    with torch.inference_mode():
        engine = model(**batch.inputs).logits
    assert plain["labels"] == ["negative", "positive"]
    assert float((engine - torch.tensor(plain["logits"])).abs().max()) < 1e-5
    assert float(engine.std()) > 1e-3


def test_the_folder_tells_how_it_was_made(folder: JobFolder) -> None:
    records = run(folder.job(spec()))
    output = folder.path / "output"
    assert {path.name for path in output.iterdir()} == {
        "README.md", "config.json", "luthier.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    recipe = json.loads((output / "luthier.json").read_text())
    assert recipe["spec"] == spec().model_dump()
    assert recipe["metrics"] == records[-1]["metrics"]
    assert recipe["step"] == records[-1]["best_step"]
    card = (output / "README.md").read_text()
    for evaluation in of_type(records, "metrics", split="valid"):
        assert f"| {evaluation['step']} | {evaluation['values']['loss']:.5g} |" in card
    bars = card.split("```text\n")[1].split("\n")[0]
    assert len(bars) == 24
    assert "▁" in bars
    assert "█" in bars
    assert str(folder.path) not in card


def test_a_users_names_cannot_break_the_card(folder: JobFolder) -> None:
    job = folder.job(spec(labels=["`\n# Fake heading", "b"], model='x"\nlicense: none'))
    state = RunState.fresh(job.spec)
    state.curve.add(1, 0.5)
    card = model_card(job, state)
    assert "Labels: `'\\n# Fake heading`, `b`" in card
    assert "\nlicense" not in card


@pytest.mark.parametrize("total", [7, 100, 12_345])
def test_a_curve_is_bounded_and_its_means_are_those_of_all_steps(total: int) -> None:
    curve = LossCurve(total)
    for step in range(1, total + 1):
        curve.add(step, float(step))
    points = curve.points()
    assert len(points) == min(total, 100)
    assert points[-1][0] == total
    ends = [0, *(step for step, _ in points)]
    for (first, last), (_, mean) in zip(pairwise(ends), points, strict=True):
        assert mean == pytest.approx((first + 1 + last) / 2)


def test_a_curve_tells_the_steps_where_some_had_no_loss_and_the_end_came_early() -> None:
    curve = LossCurve(1000)
    for step in (*range(1, 8), *range(15, 34)):
        curve.add(step, float(step))
    assert curve.points() == [(10, 4.0), (20, 17.5), (30, 25.5), (33, 32.0)]


@pytest.mark.parametrize("task", TRAINABLE)
def test_the_card_says_what_loads_the_model(folder: JobFolder, task: str) -> None:
    """By names that this transformers has: several tasks have no pipeline."""
    job = folder.job(spec(task=task))
    state = RunState.fresh(job.spec)
    state.curve.add(1, 0.5)
    card = model_card(job, state)
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    tag = card.split('pipeline_tag: "')[1].split('"')[0]
    if found := re.search(r'pipeline\("([^"]+)"', code):
        assert found[1] in PIPELINE_REGISTRY.get_supported_tasks()
        assert tag == found[1]
    else:
        assert hasattr(transformers, code.partition("AutoTokenizer, ")[2].split()[0])
