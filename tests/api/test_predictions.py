"""A fine-tuned model tried on one input, by a real child on tiny models."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from models import predictions
from models.db import transaction
from models.predictions import Prediction, PredictionStatus
from models.registry import FineTunedModel
from tests.api import control
from tests.api.conftest import Live
from tests.rows import make_model
from tests.training.causal import tiny_llama
from tests.training.material import tiny_bert, tiny_t5
from tests.training.pictures import png, tiny_vit
from worker.prediction import predict


def child() -> psutil.Process:
    """The process that tries a model, as soon as there is one."""
    while True:
        for one in psutil.Process().children():
            with suppress(psutil.Error):
                if "training.predict" in one.cmdline():
                    return one
        time.sleep(0.01)


def register(live: Live, folder: Path, task: str) -> str:
    return make_model(live.engine, live.store, live.project_id, folder, task)


def ask(live: Live, model: str, input: Any, status: int = 200, **more: Any) -> Any:
    with live.http() as http:
        answer = http.post("/predictions", json={"model": model, "input": input} | more)
    assert answer.status_code == status, answer.text
    return answer.json()


def tried(live: Live, model: str, input: Any, **more: Any) -> Any:
    """Ask, and do what a control worker does when it is rung."""
    asked = ask(live, model, input, **more)
    assert (asked["status"], asked["output"], asked["seconds"]) == ("queued", None, None)
    predict(control.context_of(live), asked["id"])
    return control.got(live, f"/predictions/{asked['id']}")


def test_text_classification(live: Live, tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    folder = tiny_bert(tmp_path / "bert")
    labels = {0: "bad", 1: "good"}
    made = BertForSequenceClassification.from_pretrained(folder, num_labels=2, id2label=labels)
    made.save_pretrained(folder)
    model = register(live, folder, "text-classification")
    found = tried(live, model, "a fine film")
    assert (found["status"], found["error"]) == ("succeeded", None)
    assert {row["label"] for row in found["output"]} == {"bad", "good"}
    assert sum(row["score"] for row in found["output"]) == pytest.approx(1)
    assert found["seconds"] > 0
    wrong = tried(live, model, {"messages": [{"role": "user", "content": "Hello"}]})
    assert (wrong["status"], wrong["error"]["code"]) == ("failed", "invalid_input")
    wrong = tried(live, model, {"text": "a fine film", "target_language": "de"})
    assert (wrong["status"], wrong["error"]["code"]) == ("failed", "invalid_input")
    assert "`input.target_language`" in wrong["error"]["message"]


def test_translation_by_a_model_that_is_told_no_languages(live: Live, tmp_path: Path) -> None:
    model = register(live, tiny_t5(tmp_path / "t5"), "translation")
    found = tried(live, model, "fine", max_tokens=5)
    assert found["error"] is None
    assert isinstance(found["output"]["text"], str)
    wrong = tried(live, model, {"text": "fine", "source_language": "en"})
    assert wrong["error"]["code"] == "invalid_input"
    assert "is told no languages" in wrong["error"]["message"]


def test_text_generation(live: Live, tmp_path: Path) -> None:
    model = register(live, tiny_llama(tmp_path / "llama"), "text-generation")
    chat = {"messages": [{"role": "user", "content": "Hello"}]}
    found = tried(live, model, chat, max_tokens=5)
    assert found["error"] is None
    assert isinstance(found["output"]["text"], str)


def test_image_classification(live: Live, tmp_path: Path) -> None:
    import numpy as np

    model = register(live, tiny_vit(tmp_path / "vit"), "image-classification")
    file = live.upload(png(np.zeros((20, 20, 3), np.uint8)), purpose="vision")
    found = tried(live, model, {"file": file})
    assert found["error"] is None
    assert all(0 <= row["score"] <= 1 for row in found["output"])
    with live.http(live.stranger_key) as http:
        assert http.get(f"/predictions/{found['id']}").status_code == 404
    wrong = tried(live, model, {"file": live.upload(b"a text", purpose="vision")})
    assert (wrong["status"], wrong["error"]["code"]) == ("failed", "invalid_input")
    assert "not an image" in wrong["error"]["message"]


class TestWithoutAChild:
    @pytest.fixture
    def model(self, live: Live, tmp_path: Path) -> str:
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "model.safetensors").write_bytes(b"none")
        return register(live, tmp_path, "text-classification")

    def test_a_strangers_model_or_file(self, live: Live, model: str) -> None:
        with live.http(live.stranger_key) as http:
            body = {"model": model, "input": "x"}
            assert http.post("/predictions", json=body).status_code == 404
        found = ask(live, model, {"file": "file-none"}, status=404)
        assert found["error"]["param"] == "input.file"

    def test_a_base_model_is_none_of_the_projects(self, live: Live) -> None:
        assert ask(live, "all-MiniLM-L6-v2", "x", status=404)["error"]["param"] == "model"

    def test_too_large(self, live: Live, model: str) -> None:
        with transaction(live.engine) as session:
            row = session.get_one(FineTunedModel, model)
            row.files = [{**row.files[1], "bytes": 3 * 2**30, "path": "model.safetensors"}]
        found = ask(live, model, "x", status=400)
        assert found["error"]["code"] == "model_too_large"
        assert "3.0 GiB" in found["error"]["message"]

    def test_an_input_that_is_none(self, live: Live, model: str) -> None:
        for wrong in ("", {"texts": "x"}, {"messages": []}, 3):
            assert ask(live, model, wrong, status=400)["error"]["param"].startswith("input")

    def test_waiting_ends_with_the_answer(self, live: Live, model: str) -> None:
        def answer() -> None:
            while True:
                with transaction(live.engine) as session:
                    for one in predictions.waiting(session):
                        row = predictions.claim(session, one, 30)
                        assert row is not None
                        output = {"result": [1]}
                        predictions.end(session, one, row.fence, output=output, error=None)
                        return
                time.sleep(0.05)

        with transaction(live.engine) as session:
            for one in predictions.waiting(session):
                session.delete(session.get_one(Prediction, one))
        thread = threading.Thread(target=answer)
        thread.start()
        with live.http() as http:
            began = time.monotonic()
            body = {"model": model, "input": "x"}
            found = http.post("/predictions?wait=20", json=body).json()
        thread.join()
        assert (found["status"], found["output"]) == ("succeeded", [1])
        assert time.monotonic() - began < 15

    def test_a_child_that_dies_is_told(self, live: Live, model: str) -> None:
        threading.Thread(target=lambda: child().kill(), daemon=True).start()
        found = tried(live, model, "x")
        assert (found["status"], found["error"]["code"]) == ("failed", "prediction_failed")

    def test_a_deploy_counts_as_no_try(self, live: Live, model: str) -> None:
        made = ask(live, model, "x")["id"]
        context = control.context_of(live)
        work = threading.Thread(target=predict, args=(context, made))
        work.start()
        trying = child()
        context.stopping.set()
        work.join(10)
        assert not work.is_alive()
        assert not trying.is_running()
        with transaction(live.engine) as session:
            row = session.get_one(Prediction, made)
            assert (row.status, row.tries) == (PredictionStatus.QUEUED, 0)
        predict(control.context_of(live), made)
        with transaction(live.engine) as session:
            row = session.get_one(Prediction, made)
            assert (row.fence, row.tries) == (2, 1)
            assert row.finished_at is not None

    def test_the_lease_and_the_day(self, live: Live, model: str) -> None:
        made = ask(live, model, "x")["id"]
        with transaction(live.engine) as session:
            first = predictions.claim(session, made, 30)
            assert first is not None
            assert predictions.claim(session, made, 30) is None
            first.lease_expires_at = first.created_at
        with transaction(live.engine) as session:
            assert made in predictions.waiting(session)
            second = predictions.claim(session, made, 30)
            assert second is not None
        assert (first.fence, second.fence) == (1, 2)
        with transaction(live.engine) as session, pytest.raises(predictions.LeaseLost):
            predictions.end(session, made, 1, output={}, error=None)
        with transaction(live.engine) as session:
            row = session.get_one(Prediction, made)
            assert row.status == PredictionStatus.RUNNING
            row.created_at -= 1.1 * predictions.KEPT
            session.flush()
            predictions.forget(session)
        with transaction(live.engine) as session:
            assert session.get(Prediction, made) is None
