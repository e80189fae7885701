"""Data that people made, through the whole service: upload, report, job, model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from luthier import Luthier

from examples import reviews
from tests.conftest import Service, start_service, stop_service
from tests.ingest.real_data import digits, sentences, translations
from tests.training.material import tiny_t5
from tests.training.sounds import listener

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Luthier]:
    folder = tmp_path_factory.mktemp("real-data")
    models = {"tiny-t5": tiny_t5(folder / "t5"), "tiny-listener": listener(folder / "listener")}
    registered = json.dumps({name: str(path) for name, path in models.items()})
    service: Service = start_service(folder / "data", LUTHIER_BASE_MODELS=registered)
    yield Luthier(base_url=service.base_url, api_key=service.key)
    stop_service(service)


@pytest.mark.parametrize(
    ("kind", "model", "options", "rows"),
    [
        ("reviews", "all-MiniLM-L6-v2", {}, 9605),
        ("translations", "tiny-t5", {"skip_invalid": 0.05}, None),
        ("digits", "scratch/convnext-tiny", {"tuning": "scratch"}, 1797),
        ("speech", "tiny-listener", {}, 4),
    ],
)
def test_upload_report_job(
    client: Luthier,
    tmp_path: Path,
    kind: str,
    model: str,
    options: dict[str, object],
    rows: int | None,
) -> None:
    match kind:
        case "reviews":
            train, _ = reviews.fetch(tmp_path / "reviews")
            name, content = "reviews.csv", train.read_bytes()
        case "translations":
            name, (content, count) = "de.jsonl", translations(tmp_path)
        case "digits":
            name, content = "digits.zip", digits()
        case _:
            name, content = "clips.zip", sentences(tmp_path)
    uploaded = client.files.create(file=(name, content), purpose="fine-tune")
    checked = client.files.wait_for_processing(uploaded.id, poll_interval=0.5)
    job = client.fine_tuning.jobs.create(
        model=model,
        training_file=uploaded.id,
        hyperparameters={"max_steps": 2, "batch_size": 2},
        extra_body=options,
    )
    for update in client.fine_tuning.jobs.watch(job.id):
        job = update.job
    assert job.status == "succeeded", job.error
    report = client.validations.of_job(job.id).training.report
    if kind == "translations":
        # The gaps of the catalogue are bad rows, which the job left out as it was asked to.
        assert checked.status == "error"
        assert report["rows"] + report["skipped"]["rows"] == count
        assert report["skipped"]["rows"] > 0
        assert job.result_files
    else:
        assert checked.status == "processed"
        assert report["rows"] == rows
    assert report["profile"]
    assert {file.path for file in client.models.files(job.fine_tuned_model)} >= {
        "config.json",
        "model.safetensors",
    }
