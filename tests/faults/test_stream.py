"""Followers of a job that are cut off again and again. Row 21.

By the list of events with its cursor, newest first, as the OpenAI client reads it; by the stream.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from luthier import Luthier

from models.state import TERMINAL
from tests.faults.fleet import Fleet
from tests.faults.killing import LONG, Killer

PAGE = 7


@pytest.mark.faults
def test_a_follower_that_is_cut_off_misses_nothing_and_sees_nothing_twice(
    fleet: Fleet, rng: random.Random
) -> None:
    """Row 21: the API is killed, the trainer is killed; the follower comes back with its cursor."""
    worker = fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    killer = Killer(fleet, job_id, worker, rng)
    followed: list[str] = []
    killed = False
    while True:
        over = fleet.job(job_id)["finished_at"] is not None
        followed += reversed(_newer_than(fleet, job_id, followed[-1] if followed else None))
        if over:
            break
        if not killed and fleet.step(job_id) > 100:
            killer.trainer()
            killed = True
        if rng.random() < 0.02:
            (api,) = fleet.alive("api")
            api.kill()
            fleet.start_api()
    assert fleet.job(job_id)["status"] in TERMINAL
    everything = [event["id"] for event in fleet.events(job_id)]
    assert followed == everything
    assert len(set(followed)) == len(followed)


@pytest.mark.faults
def test_a_stream_that_is_cut_off_tells_each_step_and_event_once(
    fleet: Fleet, rng: random.Random
) -> None:
    """Row 21, by the event stream: the API dies under it three times, and the trainer once."""
    job_id = fleet.submit(fleet.upload(), **LONG)
    killer = Killer(fleet, job_id, fleet.worker(), rng)
    client = Luthier(base_url=f"{fleet.url}/v1", api_key=fleet.key)
    with ThreadPoolExecutor(1) as threads:
        following = threads.submit(lambda: list(client.fine_tuning.jobs.watch(job_id)))
        for beyond in (20, 150, 300):
            fleet.wait_step(job_id, beyond)
            (api,) = fleet.alive("api")
            api.kill()
            if beyond == 150:
                killer.trainer()
            fleet.start_api()
        updates = following.result(120)
    assert any(update.interruption for update in updates)
    points = [point.step for update in updates for point in update.points if point.split == "train"]
    assert points == list(range(1, LONG["max_steps"] + 1))
    told = [event.id for update in updates for event in update.events]
    assert told == [event["id"] for event in fleet.events(job_id)]
    assert updates[-1].job.status == "succeeded"


@pytest.mark.faults
def test_paging_through_while_more_is_written_gives_each_event_once(fleet: Fleet) -> None:
    """Row 21: pages read during the run hold what was there at their beginning, each once."""
    fleet.worker()
    job_id = fleet.submit(fleet.upload(), **LONG)
    fleet.wait_step(job_id, 100)
    seen: list[str] = []
    while page := _page(fleet, job_id, seen[-1] if seen else None):
        seen += [event["id"] for event in page]
    fleet.wait_status(job_id, *TERMINAL)
    everything = [event["id"] for event in reversed(fleet.events(job_id))]
    assert seen == everything[everything.index(seen[0]) :]


def _page(fleet: Fleet, job_id: str, after: str | None) -> list[dict[str, Any]]:
    params = {"limit": PAGE} | ({"after": after} if after else {})
    found: list[dict[str, Any]] = fleet.get(f"/fine_tuning/jobs/{job_id}/events", **params)["data"]
    return found


def _newer_than(fleet: Fleet, job_id: str, known: str | None) -> list[str]:
    """The ids newer than the known one, newest first, over as many pages as that takes."""
    newer: list[str] = []
    while page := [event["id"] for event in _page(fleet, job_id, newer[-1] if newer else None)]:
        if known in page:
            return newer + page[: page.index(known)]
        newer += page
    return newer
