"""The client classes against a live service: what they add to OpenAI's, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from luthier import AsyncLuthier, Job, Luthier, MetricPoint, Update

from tests.conftest import Service

MODEL = "all-MiniLM-L6-v2"
STEPS = 4


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Luthier]:
    with Luthier(base_url=service.base_url, api_key=service.key) as client:
        yield client


@pytest.fixture(scope="module")
def training_file(client: Luthier, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("client") / "train.csv"
    rows = (f"{word} film {i},{word}" for i in range(8) for word in ("good", "bad"))
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return client.files.create(file=path, purpose="fine-tune").id


@pytest.fixture(scope="module")
def updates(client: Luthier, training_file: str) -> list[Update]:
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=training_file,
        validation_file=training_file,
        task="text-classification",
        hyperparameters={"max_steps": STEPS, "batch_size": 4, "eval_every": 2},
        metadata={"made-by": "test"},
    )
    assert isinstance(job, Job)
    return list(client.fine_tuning.jobs.watch(job.id))


def test_watch_tells_everything_once_and_ends_with_the_job(updates: list[Update]) -> None:
    points = [point for update in updates for point in update.points]
    steps = {split: [p.step for p in points if p.split == split] for split in ("train", "valid")}
    assert steps["train"] == [1, 2, 3, 4]
    assert steps["valid"][-2:] == [2, 4]
    events = [event for update in updates for event in update.events]
    assert len({event.id for event in events}) == len(events)
    assert [event.created_at for event in events] == sorted(event.created_at for event in events)
    assert [update.job.status for update in updates].index("succeeded") == len(updates) - 1


def test_a_job_has_our_fields_typed(updates: list[Update], client: Luthier) -> None:
    job = client.fine_tuning.jobs.retrieve(updates[-1].job.id)
    assert isinstance(job, Job)
    assert job.task == "text-classification"
    assert job.progress is not None
    assert (job.progress.step, job.progress.percent) == (STEPS, 100.0)
    assert job.metrics is not None
    assert job.metrics.best is not None
    assert job.attempts is not None
    assert job.attempts[0].outcome == "succeeded"
    assert job.resolved is not None
    assert job.resolved["labels"] == ["bad", "good"]
    listed = client.fine_tuning.jobs.list(metadata={"made-by": "test"})
    assert isinstance(listed.data[0], Job)
    assert job.id in [one.id for one in listed]


def test_metrics_come_page_by_page(updates: list[Update], client: Luthier) -> None:
    jobs, job_id = client.fine_tuning.jobs, updates[-1].job.id
    points = list(jobs.metrics(job_id, split="train"))
    assert all(isinstance(point, MetricPoint) for point in points)
    assert [point.step for point in points] == [1, 2, 3, 4]
    page = jobs.metrics_page(job_id, split="train", extra_query={"limit": 3})
    assert page.has_more
    assert [point.step for point in jobs.metrics(job_id, after_step=page.data[-1].step)] == [4]


def test_the_stock_client_s_ways_still_work(updates: list[Update], client: Luthier) -> None:
    jobs, job_id = client.fine_tuning.jobs, updates[-1].job.id
    raw = jobs.with_raw_response.retrieve(job_id)
    assert raw.headers["x-request-id"].startswith("req-")
    assert raw.parse().id == job_id
    assert client.with_options(timeout=5).fine_tuning.jobs.retrieve(job_id).id == job_id
    assert next(iter(jobs.checkpoints.list(job_id))).step_number == STEPS
    with pytest.raises(openai.NotFoundError):
        jobs.retrieve("ftjob-none")
    with pytest.raises(ValueError, match="empty id"):
        jobs.retrieve("")


def test_extra_body_and_our_own_arguments_say_the_same(client: Luthier, training_file: str) -> None:
    for more in ({"task": "no-such-task"}, {"extra_body": {"task": "no-such-task"}}):
        with pytest.raises(openai.BadRequestError) as error:
            client.fine_tuning.jobs.create(
                model=MODEL,
                training_file=training_file,
                **more,  # type: ignore[arg-type]
            )
        assert error.value.param == "task"


def test_the_asynchronous_twin(updates: list[Update], service: Service, tmp_path: Path) -> None:
    job_id = updates[-1].job.id

    async def run() -> None:
        async with AsyncLuthier(base_url=service.base_url, api_key=service.key) as client:
            jobs = client.fine_tuning.jobs
            seen = [update async for update in jobs.watch(job_id)]
            assert len(seen) == 1
            steps = [point.step for point in seen[0].points if point.split == "train"]
            assert steps == [point.step async for point in jobs.metrics(job_id)] == [1, 2, 3, 4]
            assert job_id in [job.id async for job in jobs.list()]
            assert "text-classification" in [task.id async for task in client.tasks.list()]
            model = seen[0].job.fine_tuned_model
            assert model is not None
            folder = await client.models.download(model, tmp_path)
            files = [file async for file in client.models.files(model)]
            assert all((folder / file.path).stat().st_size == file.bytes for file in files)

    asyncio.run(run())
