"""`client.validations` and `luthier data check --server` against a live service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from luthier import AsyncLuthier, Luthier, NotInTime

from tests.conftest import Service, clean_environment

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("check")
    rows = [f"checked film {n},{('good', 'bad')[n % 2]}" for n in range(40)]
    (made / "train.csv").write_text("review,label\n" + "\n".join(rows) + "\n")
    (made / "bad.csv").write_text("text,label\nfine,good\n,bad\n\x1b[31mred,\nfilm,bad\n")
    return made


def check(service: Service, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "luthier", "data", "check", *arguments, "--server"],
        cwd=folder,
        env=clean_environment(LUTHIER_DATA_DIR=str(service.data_dir)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_good_file(service: Service, folder: Path) -> None:
    done = check(service, folder, "train.csv", "--mapping", "text=review", "--model", MODEL)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "train.csv: 40 training rows (text,label)" in lines
    assert "         20  good" in lines
    assert lines[-1] == "The data can be trained on."


def test_a_bad_file_exits_with_1_and_shows_each_place(service: Service, folder: Path) -> None:
    done = check(service, folder, "bad.csv", "--task", "text-classification")
    assert done.returncode == 1
    assert "bad.csv line 3, column `text`" in done.stdout
    assert "bad.csv line 4, column `label`" in done.stdout
    assert "\x1b[31m" not in done.stdout


def test_json_is_the_validation(service: Service, folder: Path) -> None:
    done = check(service, folder, "train.csv", "--validation", "train.csv", "--json")
    found = json.loads(done.stdout)
    assert (found["status"], found["task"]) == ("succeeded", "text-classification")
    assert found["validation"]["rows"] == 40


def test_the_client(service: Service, folder: Path) -> None:
    client = Luthier(base_url=service.base_url, api_key=service.key)
    with (folder / "train.csv").open("rb") as stream:
        file = client.files.create(file=("train.csv", stream), purpose="fine-tune")
    assert client.files.wait_for_processing(file.id, poll_interval=0.2).status == "processed"
    begun = client.validations.create(
        training_file=file.id, cleaning={"split": 0.25, "seed": 4}, skip_invalid=0.01
    )
    with pytest.raises(NotInTime, match="goes on"):
        client.validations.wait(begun.id, max_wait_seconds=-1)
    done = client.validations.wait(begun.id)
    assert done.training is not None
    assert done.validation is not None
    assert (done.training.rows, done.validation.rows) == (30, 10)
    assert begun.id in [row.id for row in client.validations.list(limit=100).data]
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file.id,
        cleaning={"split": 0.25, "seed": 4},
        skip_invalid=0.01,
    )
    assert job.validation == client.validations.of_job(job.id).id == begun.id
    client.fine_tuning.jobs.cancel(job.id)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_async_client(service: Service, folder: Path) -> None:
    async with AsyncLuthier(base_url=service.base_url, api_key=service.key) as client:
        file = await client.files.create(
            file=("bad.csv", (folder / "bad.csv").read_bytes()), purpose="fine-tune"
        )
        begun = await client.validations.create(training_file=file.id)
        done = await client.validations.wait(begun.id)
        assert done.error is not None
        assert [place["line"] for place in done.error.details] == [3, 4]
        assert (await client.validations.retrieve(begun.id)).status == "failed"
        assert begun.id in [row.id async for row in client.validations.list()]
