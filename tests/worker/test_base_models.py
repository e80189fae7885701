"""Base models of a hub: fetched while they are wanted, kept while there is room."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from sqlalchemy import update

from models import catalogue, control
from models.catalogue import BaseModel, ModelUnavailable
from models.db import transaction
from models.jobs import Job
from models.leases import LeaseLost
from models.resolve import DataFacts, resolve
from models.spec import JobRequest
from models.state import Desired
from tests.api.hub import Hub, running_hub
from tests.rows import claim, make_job, make_project
from worker import base_models
from worker.context import Context
from worker.lease import Lease
from worker.prepare import NotWanted, job_folder, prepare
from worker.scratch import JOBS

NAME = "lab/tiny"
WEIGHTS = "model.safetensors"
BYTES = 400 * 1024
"""Of weights: minutes where they come in drops."""


@pytest.fixture
def context(context_with: Callable[..., Context]) -> Context:
    return context_with(heartbeat_seconds=0.1)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        made.models[NAME] = {"config.json": b"{}", WEIGHTS: bytes(BYTES)}
        yield made


@pytest.fixture
def job(context: Context, hub: Hub) -> Job:
    request = JobRequest(model=NAME, training_file="file-x")
    key = "datasets/of-the-test.arrow"
    sha256 = context.store.write_bytes(key, b"rows").sha256
    facts = DataFacts("text-classification", 8, 0, ["a", "b"], sha256, None)
    spec = resolve(request, facts, model=NAME, model_revision=hub.revision[NAME], seed=1,
                   max_job_tokens=10**9)  # fmt: skip
    project = make_project(context.engine)
    make_job(context.engine, project, resolved=spec.model_dump(), train_key=key)
    return claim(context.engine)


def cancel(context: Context, job: Job) -> None:
    with transaction(context.engine) as session:
        control.ask(session, job.project_id, job.id, Desired.CANCEL, "now")


def shut_down(context: Context, job: Job) -> None:
    context.stopping.set()


def lose(context: Context, job: Job) -> None:
    with transaction(context.engine) as session:
        session.execute(update(Job).where(Job.id == job.id).values(fence=Job.fence + 1))


def downloads() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "worker.hub_model" in one.cmdline()]


@pytest.mark.parametrize(
    ("stop", "raised"), [(cancel, NotWanted), (shut_down, NotWanted), (lose, LeaseLost)]
)
def test_a_download_ends_when_nobody_wants_it_any_more(
    context: Context,
    job: Job,
    hub: Hub,
    stop: Callable[[Context, Job], None],
    raised: type[Exception],
) -> None:
    hub.slow = WEIGHTS
    folder = job_folder(context, job)
    folder.mkdir()
    with (
        Lease(context, job.id, job.fence, lambda: None, claimed=time.monotonic()) as lease,
        ThreadPoolExecutor(1) as pool,
    ):
        preparing = pool.submit(prepare, context, job, lease, folder, "cpu")
        assert hub.dripping.wait(60)
        assert downloads()
        began = time.monotonic()
        stop(context, job)
        with pytest.raises(raised):
            preparing.result(30)
        assert time.monotonic() - began < 5
    assert downloads() == []
    assert hub.left.wait(10)


def test_what_is_there_is_not_asked_for_again(context: Context, job: Job, hub: Hub) -> None:
    folder = job_folder(context, job)
    folder.mkdir()
    with Lease(context, job.id, job.fence, lambda: None, claimed=time.monotonic()) as lease:
        prepare(context, job, lease, folder, "cpu")
        asked = len(hub.asked)
        prepare(context, job, lease, folder, "cpu")
    assert len(hub.asked) == asked > 0
    model = Path(json.loads((folder / "job.json").read_bytes())["model_dir"])
    assert (model / WEIGHTS).stat().st_size == BYTES


def test_what_the_hub_does_not_give_is_told(context: Context, hub: Hub) -> None:
    folder = context.scratch(JOBS, "ftjob-x.1")
    model = BaseModel("lab/gone", "hub", revision=hub.revision[NAME])
    with pytest.raises(ModelUnavailable, match="could not be downloaded"):
        base_models.obtain(context, model, catalogue.WEIGHT_FILES, folder, lambda: None)


def test_what_was_not_used_for_longest_makes_room_but_nothing_in_use(
    context: Context, hub: Hub
) -> None:
    for number in range(3):
        hub.models[f"lab/{number}"] = {"config.json": b"{}", WEIGHTS: bytes([number]) * BYTES}
    context.settings.hub_cache_bytes = 2 * BYTES + 100
    cache = context.scratch("cache", "hub")

    def use(number: int) -> Path:
        folder = context.scratch(JOBS, f"ftjob-{number}.1")
        model = BaseModel(f"lab/{number}", "hub", revision=hub.revision[f"lab/{number}"])
        base_models.obtain(context, model, catalogue.WEIGHT_FILES, folder, lambda: None)
        return folder

    def kept() -> set[int]:
        return {n for n in range(3) if list(cache.glob(f"models--lab--{n}/snapshots/*/*"))}

    first = use(0)
    part = cache / "models--lab--0" / "blobs" / "etag.1234.incomplete"
    part.write_bytes(b"half")
    shutil.rmtree(use(1))
    third = use(2)
    assert kept() == {0, 2}, "the first one is older, but in use"
    assert part.exists()
    shutil.rmtree(first)
    base_models.make_room(context)
    assert kept() == {0, 2}, "there is room for both"
    assert not part.exists()
    context.settings.hub_cache_bytes = BYTES + 100
    base_models.make_room(context)
    assert kept() == {2}
    context.settings.hub_cache_bytes = 0
    base_models.make_room(context)
    assert kept() == {2}, "in use, however little room there is"
    shutil.rmtree(third)
    base_models.make_room(context)
    assert kept() == set()
    assert not list(cache.glob("models--*"))
