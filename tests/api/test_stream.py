"""The event stream: all that happens to a job, each thing once, however often it is cut."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from api import stream
from api.context import Context
from core.doorbell import Doorbell
from core.telemetry import Tracing
from models import events, follow, leases, metrics
from models.db import async_engine, transaction
from models.state import Status
from tests.api.conftest import Live
from tests.api.rows import make_running_job
from tests.rows import read_job

STREAM = {"Accept": "text/event-stream"}


@dataclass
class Message:
    name: str
    id: str | None
    data: dict[str, object]


def messages(lines: Iterator[str]) -> Iterator[Message]:
    """By the specification of server-sent events, as far as it is used here."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                yield Message(fields["event"], fields.get("id"), json.loads(fields["data"]))
            fields = {}


@dataclass
class Follower:
    """Follows a job, and is cut off after every `cut_after` messages."""

    live: Live
    job_id: str
    cut_after: int | None = None
    seen: list[Message] = field(default_factory=list)
    ended: bool = False

    def follow(self) -> Follower:
        last: str | None = None
        with self.live.http() as http:
            while not self.ended:
                headers = STREAM | ({"Last-Event-ID": last} if last else {})
                path = f"/fine_tuning/jobs/{self.job_id}/events"
                with http.stream("GET", path, headers=headers) as answer:
                    assert answer.headers["content-type"].startswith("text/event-stream")
                    for count, message in enumerate(messages(answer.iter_lines()), start=1):
                        self.seen.append(message)
                        last = message.id or last
                        self.ended = message.name == "end"
                        if count == self.cut_after and message.id:
                            break
        return self

    def steps(self) -> list[object]:
        return [m.data["step"] for m in self.seen if m.name == "metrics"]

    def words(self) -> list[object]:
        return [m.data["message"] for m in self.seen if m.name == "event"]


def write_steps(live: Live, job_id: str, first: int, last: int) -> None:
    """As a worker does, in the transaction that holds the lease."""
    fence = read_job(live.engine, job_id).fence
    with transaction(live.engine) as session:
        held = leases.hold(session, job_id, fence)
        points = [
            {
                "split": "train",
                "step": step,
                "values": {"loss": 1.0 / step},
                "created_at": datetime.now(UTC),
            }
            for step in range(first, last + 1)
        ]
        metrics.write(session, job_id, points)
        held.progress = {"step": last, "total_steps": 1000, "epoch": 0.5}
        events.add(session, job_id, f"Step {last}")


def end(live: Live, job_id: str) -> None:
    with transaction(live.engine) as session:
        leases.end(
            session, job_id, read_job(live.engine, job_id).fence, Status.CANCELLED, "cancelled"
        )


@pytest.fixture
def job_id(live: Live) -> Iterator[str]:
    made = make_running_job(live)
    yield made
    if read_job(live.engine, made).status == Status.RUNNING:
        end(live, made)


def test_what_was_and_what_comes_is_told_once(live: Live, job_id: str) -> None:
    write_steps(live, job_id, 1, 700)
    with ThreadPoolExecutor(1) as threads:
        following = threads.submit(Follower(live, job_id).follow)
        for first in range(701, 760, 10):
            write_steps(live, job_id, first, first + 9)
        end(live, job_id)
        follower = following.result(30)
    assert follower.steps() == list(range(1, 761))
    told = follower.words()
    assert len(told) == len(set(told))
    assert [m.data["status"] for m in follower.seen if m.name == "end"] == ["cancelled"]
    progress = [m.data["progress"]["step"] for m in follower.seen if m.name == "job"]  # type: ignore[index]
    assert progress == sorted(progress)


def test_followers_that_are_cut_off_miss_nothing_and_see_nothing_twice(
    live: Live, job_id: str
) -> None:
    with ThreadPoolExecutor(12) as threads:
        followers = [
            threads.submit(Follower(live, job_id, cut_after=20 + number).follow)
            for number in range(12)
        ]
        for first in range(1, 300, 10):
            write_steps(live, job_id, first, first + 9)
        end(live, job_id)
        for following in followers:
            follower = following.result(60)
            assert follower.steps() == list(range(1, 301))
            told = follower.words()
            assert [word for word in told if str(word).startswith("Step")] == [
                f"Step {last}" for last in range(10, 301, 10)
            ]


def test_what_was_measured_before_the_first_step_is_told(live: Live, job_id: str) -> None:
    fence = read_job(live.engine, job_id).fence
    point = {"split": "valid", "step": 0, "values": {"loss": 0.7}, "created_at": datetime.now(UTC)}
    with transaction(live.engine) as session:
        leases.hold(session, job_id, fence)
        metrics.write(session, job_id, [point])
    write_steps(live, job_id, 1, 2)
    end(live, job_id)
    assert Follower(live, job_id).follow().steps() == [0, 1, 2]


def test_ids_rise(live: Live, job_id: str) -> None:
    write_steps(live, job_id, 1, 40)
    end(live, job_id)
    follower = Follower(live, job_id).follow()
    cursors = [m.id.rstrip("tv").split(".") for m in follower.seen if m.id]
    numbers = [(int(event), int(step)) for event, step in cursors]
    assert numbers == sorted(numbers)


def test_a_resumed_run_is_not_told_again(live: Live, job_id: str) -> None:
    """Points beyond the checkpoint are dropped and computed again; a follower saw them already."""
    write_steps(live, job_id, 1, 50)
    fence = read_job(live.engine, job_id).fence
    with live.http() as http:
        path = f"/fine_tuning/jobs/{job_id}/events"
        with http.stream("GET", path, headers=STREAM) as answer:
            seen = []
            for message in messages(answer.iter_lines()):
                seen.append(message)
                if message.name == "job":
                    break
        last = [m.id for m in seen if m.id][-1]
        with transaction(live.engine) as session:
            leases.hold(session, job_id, fence)
            metrics.forget_after(session, job_id, 30)
        write_steps(live, job_id, 31, 60)
        end(live, job_id)
        assert last is not None
        with http.stream("GET", path, headers=STREAM | {"Last-Event-ID": last}) as answer:
            more = list(messages(answer.iter_lines()))
    steps = [m.data["step"] for m in (*seen, *more) if m.name == "metrics"]
    assert steps == list(range(1, 61))


def test_a_line_that_breaks_costs_a_moment(live: Live, job_id: str) -> None:
    """The connection on which notices come is cut; what is written meanwhile is told."""
    with ThreadPoolExecutor(1) as threads:
        following = threads.submit(Follower(live, job_id).follow)
        write_steps(live, job_id, 1, 10)
        while not cut_listeners(live):
            time.sleep(0.05)
        write_steps(live, job_id, 11, 20)
        end(live, job_id)
        assert following.result(30).steps() == list(range(1, 21))


def cut_listeners(live: Live) -> int:
    """Cut the connections on which the API hears of news, and say how many there were."""
    with live.engine.begin() as connection:
        return int(
            connection.exec_driver_sql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE starts_with(query, 'LISTEN') AND datname = current_database()"
            ).scalar_one()
        )


@pytest.mark.parametrize("bad", ["7", "0.1x", "-1.1t", "1.1t.1"])
def test_an_id_that_never_was_is_refused(live: Live, job_id: str, bad: str) -> None:
    with live.http() as http:
        answer = http.get(
            f"/fine_tuning/jobs/{job_id}/events",
            headers=STREAM | {"Last-Event-ID": bad},
        )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Last-Event-ID"


def test_without_the_header_it_is_openais_list(live: Live, job_id: str) -> None:
    with live.http() as http:
        answer = http.get(f"/fine_tuning/jobs/{job_id}/events").json()
    assert answer["object"] == "list"
    assert answer["data"]


def test_a_long_series_is_not_kept_for_those_who_read_it(
    live: Live, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a job that has ended no notice comes, which else clears what was read."""
    monkeypatch.setattr(follow, "PAGE", 10)
    pages = 3 * stream.MOST_READINGS
    write_steps(live, job_id, 1, 10 * pages)
    end(live, job_id)

    async def read() -> tuple[int, int]:
        context = Context(
            live.settings,
            async_engine(str(live.settings.database_url)),
            live.store,
            Doorbell(live.settings),
            live.settings.signing_secret(),
            Tracing(),
        )
        feed = stream.Feed(context, live.project_id, job_id)
        cursor, seen = follow.Cursor(), 0
        try:
            while True:
                batch = await feed.read(cursor)
                seen += batch.messages.count(b"event: metrics")
                if batch.ended:
                    return seen, len(feed._readings)
                cursor = batch.cursor
        finally:
            await context.engine.dispose()

    seen, kept = asyncio.run(read())
    assert seen == 10 * pages
    assert kept == stream.MOST_READINGS
