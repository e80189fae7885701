from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import torch
from torchmetrics.functional.text import rouge_score

from tests.training.cases import CASES, write_rows
from tests.training.material import of_type, run
from training.generated import Bleu, Rouge
from training.sequences import IGNORED
from training.tasks.translation import Translation

CASE = next(case for case in CASES if case.name == "translation")
TEXTS = ["The cat sat on the mat today.", "Loudly barking, a dog", "", "Nothing is shared"]
WANTED = ["The cat sat on a mat today.", "A dog barking very loudly!", "Empty", "x y z"]


def test_bleu_and_chrf_are_sacrebleus() -> None:
    metric = Bleu()
    metric.update(TEXTS[:1], WANTED[:1])
    metric.update(TEXTS[1:], WANTED[1:])
    assert float(metric.compute()) == pytest.approx(sacrebleu.corpus_bleu(TEXTS, [WANTED]).score)
    metrics = Translation(CASE.spec(), print).metrics(torch.device("cpu"))
    for texts, wanted in (
        (TEXTS, WANTED),
        (TEXTS[:1], WANTED[:1]),
        (["cat"], ["cat"]),
        ([""], ["a"]),
    ):
        metrics["chrf"].reset()
        for pair in zip(texts, wanted, strict=True):
            metrics["chrf"].update(*([side] for side in pair))
        expected = sacrebleu.corpus_chrf(texts, [wanted]).score
        assert 100 * float(metrics["chrf"].compute()) == pytest.approx(expected)


def test_rouge_is_the_mean_over_texts() -> None:
    metric = Rouge()
    metric.update(TEXTS, WANTED)
    values = metric.compute()
    theirs = rouge_score(TEXTS, WANTED, rouge_keys=("rouge1", "rouge2", "rougeL"))
    for name, value in values.items():
        assert float(value) == pytest.approx(float(theirs[f"{name}_fmeasure"])), name
    assert len(set(map(float, values.values()))) == 3


def test_targets_end_and_their_padding_is_not_learnt(tmp_path: Path) -> None:
    task = Translation(CASE.spec(), print)
    task.load(CASE.base(tmp_path / "base"), exact=False)
    rows = [
        {"id": 1, "source": "the movie", "target": "great"},
        {"id": 2, "source": "a film", "target": "it was [PAD] dull"},
    ]
    file = write_rows(tmp_path / "x.arrow", CASE.task, rows)
    batch = task.collate(task.read(file, "x", lambda: None), np.arange(2))
    end = task.tokenizer.eos_token_id
    expected = [task.tokenizer(row["target"])["input_ids"] for row in rows]
    assert all(ids[-1] == end for ids in expected)
    assert batch.targets[0].tolist() == [*expected[0], *[IGNORED] * 3]
    assert batch.targets[1].tolist() == expected[1]
    assert batch.references == ["great", "it was [PAD] dull"]


def test_a_trained_model_writes_what_it_learnt(tmp_path: Path) -> None:
    folder = CASE.folder(tmp_path / "job")
    records = run(folder.job(CASE.spec(total_steps=60, eval_every=60, learning_rate=0.02)))
    values = of_type(records, "metrics", split="valid")[-1]["values"]
    assert values["bleu"] > 30
    assert values["chrf"] > 0.5


def test_texts_to_be_written_that_are_cut_are_told_of(tmp_path: Path) -> None:
    said: list[str] = []
    task = Translation(CASE.spec(max_length=6), said.append)
    task.load(CASE.base(tmp_path / "base"), exact=False)
    rows = [
        {"id": 1, "source": "the movie", "target": "great " * 9},
        {"id": 2, "source": "a film", "target": "dull"},
    ]
    task.read(write_rows(tmp_path / "x.arrow", CASE.task, rows), "training_file", lambda: None)
    assert any("1 of the 2 texts to be written of training_file" in line for line in said)
