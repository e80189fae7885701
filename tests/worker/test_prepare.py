"""What an attempt does before its trainer starts, and how soon it gives way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from models import control
from models.db import transaction
from models.jobs import Job
from models.resolve import DataFacts, resolve
from models.spec import JobRequest
from models.state import Desired
from tests.rows import claim, make_job, make_project
from worker.context import Context
from worker.lease import Lease
from worker.prepare import IN_USE_SECONDS, NotWanted, prepare

KEY = "datasets/of-the-test.arrow"
HEARTBEAT = 0.1


@pytest.fixture
def context(context_with: Callable[..., Context]) -> Context:
    return context_with(heartbeat_seconds=HEARTBEAT)


@pytest.fixture
def job(context: Context) -> Job:
    request = JobRequest(model="all-MiniLM-L6-v2", training_file="file-x")
    sha256 = context.store.write_bytes(KEY, b"rows").sha256
    facts = DataFacts("text-classification", 8, 0, ["a", "b"], sha256, None)
    spec = resolve(request, facts, model=request.model, model_revision=None, seed=1,
                   max_job_tokens=10**9)  # fmt: skip
    make_job(
        context.engine,
        make_project(context.engine),
        resolved=spec.model_dump(),
        train_key=KEY,
    )
    return claim(context.engine)


def fetched(context: Context) -> list[str]:
    return [path.name for path in context.scratch("cache", "datasets").iterdir()]


def test_a_worker_that_shuts_down_fetches_nothing_more(context: Context, job: Job) -> None:
    folder = context.scratch("jobs", "one")
    context.stopping.set()
    with Lease(context, job.id, job.fence, lambda: None, claimed=time.monotonic()) as lease:
        with pytest.raises(NotWanted):
            prepare(context, job, lease, folder, "cpu")
        assert fetched(context) == []
        context.stopping.clear()
        prepare(context, job, lease, folder, "cpu")
    assert (folder / "job.json").exists()


def test_nor_one_whose_user_has_thought_better_of_it(context: Context, job: Job) -> None:
    with transaction(context.engine) as session:
        control.ask(session, job.project_id, job.id, Desired.CANCEL, "now")
    with Lease(context, job.id, job.fence, lambda: None, claimed=time.monotonic()) as lease:
        deadline = time.monotonic() + 30
        while lease.wish.desired is Desired.RUN:
            assert time.monotonic() < deadline
            time.sleep(HEARTBEAT)
        with pytest.raises(NotWanted):
            prepare(context, job, lease, context.scratch("jobs", "one"), "cpu")
    assert fetched(context) == []


def test_data_sets_make_room_for_others_but_not_those_in_use(context: Context, job: Job) -> None:
    context.settings.dataset_cache_bytes = 150
    folder = context.scratch("cache", "datasets")
    now = time.time()
    for name, age in {"old": 3, "older": 4, "new": 0.5}.items():
        path = folder / f"{name}.arrow"
        path.write_bytes(b"x" * 100)
        os.utime(path, (now, now - age * IN_USE_SECONDS))
    with Lease(context, job.id, job.fence, lambda: None, claimed=time.monotonic()) as lease:
        prepare(context, job, lease, context.scratch("jobs", "one"), "cpu")
    assert job.resolved is not None
    own = f"{job.resolved['train_sha256']}.arrow"
    assert sorted(fetched(context)) == sorted([own, "new.arrow"])
    os.utime(folder / own, (0, 0))
    with Lease(context, job.id, job.fence, lambda: None, claimed=time.monotonic()) as lease:
        prepare(context, job, lease, context.scratch("jobs", "one"), "cpu")
    assert (folder / own).stat().st_mtime > now - 60, "what is used again is the last to go"
