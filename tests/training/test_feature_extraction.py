from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from tests.training.cases import CASES, Rows, belonging, scored, write_rows
from tests.training.material import of_type, run, tiny_bert
from training import embedding, predict, retrieval, tasks
from training.failures import ModelUnavailable
from training.retrieval import RetrievalScores
from training.tasks.base import Batch
from training.tasks.feature_extraction import SCALE, FeatureExtraction

BY_NAME = {case.name: case for case in CASES}
CASE = BY_NAME["pairs"]

SENTENCE_TRANSFORMERS = """
import json, sys
from sentence_transformers import SentenceTransformer
answers, texts = [], json.load(sys.stdin)
for folder in sys.argv[1:]:
    model = SentenceTransformer(folder, device="cpu")
    answers.append([model.max_seq_length, model.encode(texts).tolist()])
print(json.dumps(answers))
"""


def loaded(folder: Path, name: str = "pairs") -> tuple[FeatureExtraction, Any]:
    task = FeatureExtraction(BY_NAME[name].spec(), lambda message: None)
    return task, task.load(folder, exact=False).eval()


def batch_of(task: FeatureExtraction, path: Path, rows: Rows) -> Batch:
    file = write_rows(path / "x.arrow", CASE.task, rows)
    return task.collate(task.read(file, "training_file", lambda: None), np.arange(len(rows)))


def plain_vectors(folder: Path, texts: list[str]) -> torch.Tensor:
    """Mean pooling, as the model cards of sentence-transformers write it out."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    vectors = []
    for text in texts:
        with torch.no_grad():
            states = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state
        vectors.append(functional.normalize(states.mean(dim=1))[0])
    return torch.stack(vectors)


def test_each_anchor_is_told_from_all_other_texts_of_the_batch(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "base")
    task, model = loaded(folder)
    rows: Rows = [
        {"id": 1, "anchor": "a great film", "positive": "it was great", "negatives": ["bad"]},
        {"id": 2, "anchor": "a dull film", "positive": "it was dull", "negatives": []},
        {"id": 3, "anchor": "the music", "positive": "a lovely scene", "negatives": ["plot", "of"]},
    ]
    loss = task.loss(model, batch_of(task, tmp_path, rows))
    anchors = plain_vectors(folder, [row["anchor"] for row in rows])
    texts = [row["positive"] for row in rows] + ["bad", "plot", "of"]
    scores = SCALE * anchors @ plain_vectors(folder, texts).T
    expected = functional.cross_entropy(scores, torch.arange(3), reduction="sum")
    assert loss.sum.item() == pytest.approx(float(expected), rel=1e-4)
    assert loss.count == 3


def test_a_positive_that_comes_twice_is_no_negative(tmp_path: Path) -> None:
    task, model = loaded(tiny_bert(tmp_path / "base"))
    row = {"anchor": "a great film", "positive": "it was great", "negatives": ["a great film"]}
    other = {"anchor": "a dull film", "positive": "it was great", "negatives": ["plot"]}

    def loss(*rows: dict[str, Any]) -> float:
        numbered = [{"id": number, **row} for number, row in enumerate(rows, start=1)]
        return task.loss(model, batch_of(task, tmp_path, numbered)).sum.item()

    # To the first row, nothing in the batch is a negative but "plot".
    alone = loss({**row, "negatives": ["plot"]})
    both, second = loss(row, other), loss(other)
    assert loss(row) == pytest.approx(0, abs=1e-6)
    assert both > second
    assert both == pytest.approx(
        alone + loss({**other, "negatives": ["plot", "a great film"]}), rel=1e-4
    )


def test_validation_scores_that_are_all_one_leave_the_loss_to_pick_the_best(tmp_path: Path) -> None:
    case = BY_NAME["scores"]
    folder = case.folder(tmp_path / "job")
    rows = [row | {"score": 0.5} for row in case.rows(6, 1)]
    write_rows(folder.path / "valid.arrow", case.task, rows)
    records = run(folder.job(case.spec(total_steps=3, eval_every=1, valid_rows=6)))
    assert records[-1]["type"] == "done"
    losses = {r["step"]: r["values"]["loss"] for r in of_type(records, "metrics", split="valid")}
    assert records[-1]["metrics"]["valid_spearman"] == 0.0
    assert records[-1]["best_step"] == min(losses, key=lambda step: losses[step]) > 1


def test_scores_are_learnt_as_cosines(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "base")
    task, model = loaded(folder, "scores")
    rows = scored(5, 3)
    loss = task.loss(model, batch_of(task, tmp_path, rows))
    left, right = (
        plain_vectors(folder, [row[side] for row in rows]) for side in ("anchor", "positive")
    )
    wanted = torch.tensor([row["score"] for row in rows])
    expected = (((left * right).sum(dim=1) - wanted) ** 2).sum()
    assert loss.sum.item() == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("block", [4, 10_000])
def test_retrieval_is_what_a_search_through_all_finds(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", block)
    torch.manual_seed(2)
    vectors = functional.normalize(torch.randn(3, 8, 5), dim=2)
    metric = RetrievalScores()
    for half in (slice(0, 4), slice(4, 8)):
        metric.update(*(part[half] for part in vectors))
    anchors, positives, negatives = vectors
    ranks = []
    for row in range(8):
        here = slice(row // 4 * 4, row // 4 * 4 + 4) if block == 4 else slice(0, 8)
        candidates = torch.cat([positives[here], negatives[here]])
        own = float(anchors[row] @ positives[row])
        ranks.append(1 + sum(float(anchors[row] @ other) > own + 1e-5 for other in candidates))
    values = metric.compute()
    assert float(values["mrr"]) == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert float(values["accuracy"]) == pytest.approx(np.mean([rank == 1 for rank in ranks]))
    assert 0 < float(values["mrr"]) < 1


def test_sentence_transformers_gives_the_engines_vectors(tmp_path: Path) -> None:
    """However the base model made its vectors."""
    rows = belonging(6, 5)
    rows[0]["anchor"] += " the movie was" * 9
    ours, outputs = [], []
    for pooling in get_args(embedding.Pooling):
        folder = CASE.folder(tmp_path / pooling)
        embedding.write(folder.model, pooling, 32, 12)
        run(folder.job(CASE.spec(total_steps=2, micro_batch_size=8)))
        outputs.append(folder.path / "output")
        task, model = loaded(outputs[-1])
        with torch.no_grad():
            ours.append(task.loss(model, batch_of(task, tmp_path, rows)).outputs[0])
    answer = subprocess.run(
        [sys.executable, "-c", SENTENCE_TRANSFORMERS, *map(str, outputs)],
        input=json.dumps([row["anchor"] for row in rows]),
        env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for (longest, theirs), vectors in zip(
        json.loads(answer.stdout.splitlines()[-1]), ours, strict=True
    ):
        assert longest == 12
        assert float((vectors - torch.tensor(theirs)).abs().max()) < 1e-5
    assert float((ours[0] - ours[1]).abs().max()) > 1e-3


def test_pooling_minds_padding_on_either_side() -> None:
    states = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).unsqueeze(-1)
    right = torch.tensor([[1, 1, 0], [1, 1, 1]])
    for mask, mean, first, last in (
        (right, [1.5, 5.0], [1.0, 4.0], [2.0, 6.0]),
        (right.flip(1), [2.5, 5.0], [2.0, 4.0], [3.0, 6.0]),
    ):
        for way, expected in (("mean", mean), ("cls", first), ("lasttoken", last)):
            assert embedding.pool(states, mask, way)[:, 0].tolist() == expected  # type: ignore[arg-type]


def test_an_unknown_pooling_is_refused(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path)
    (folder / "1_Pooling").mkdir()
    (folder / embedding.POOLING).write_text(json.dumps({"pooling_mode": "attention"}))
    with pytest.raises(ModelUnavailable, match="way that is not known"):
        loaded(folder)


def test_what_judges_is_kept_out_of_the_model_and_survives(tmp_path: Path) -> None:
    case = BY_NAME["judgements"]
    folder = tiny_bert(tmp_path / "base")
    task, model = loaded(folder, "judgements")
    with torch.no_grad():
        model.judge.weight.fill_(2.0)
    (tmp_path / "out").mkdir()
    task.save(model, tmp_path / "out")
    again = tasks.create(case.spec(), print).load(tmp_path / "out", exact=False)
    assert bool((again.judge.weight == 2.0).all())
    other = tasks.create(case.spec(labels=["no", "yes"]), print)
    assert not bool((other.load(tmp_path / "out", exact=False).judge.weight == 2.0).any())
    _, report = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not report["missing_keys"]


def test_what_the_base_model_did_beside_pooling_is_told(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "base")
    embedding.write(folder, "mean", 32, None)
    assert embedding.left_out(folder) == []
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"type": "sentence_transformers.models.Dense", "path": "3_Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    said: list[str] = []
    FeatureExtraction(CASE.spec(), said.append).load(folder, exact=False)
    assert any("by Dense as well" in line for line in said)


@pytest.mark.parametrize("pooling", get_args(embedding.Pooling))
def test_a_prediction_is_the_vector_that_was_trained(tmp_path: Path, pooling: Any) -> None:
    folder = tiny_bert(tmp_path / "base")
    embedding.write(folder, pooling, 32, 6)
    task, model = loaded(folder)
    rows = belonging(1, 5)
    with torch.no_grad():
        ours = task.loss(model, batch_of(task, tmp_path, rows)).outputs[0][0]
    asked = {"task": CASE.task, "folder": str(folder), "input": {"text": rows[0]["anchor"]}}
    theirs = predict.TASKS[CASE.task](asked)["embedding"]
    assert float((ours - torch.tensor(theirs)).abs().max()) < 1e-5
