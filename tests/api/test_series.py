"""A job's metric series as data: few points that look like all, and all as CSV and Arrow."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import func, select

from models import metrics
from models.db import transaction
from models.metrics import BLOCK, Outline
from tests.api.conftest import Live
from tests.rows import make_job

POINTS = 2 * BLOCK + 100
SPIKE = 3001


def write(live: Live, job_id: str, first: int, last: int) -> None:
    """Losses with one step that sticks out, as a worker writes them."""
    points = [
        {
            "split": "train",
            "step": step,
            "values": {"loss": 50.0 if step == SPIKE else 1 / step, "lr": 1e-4},
            "created_at": datetime(2026, 11, 22, tzinfo=UTC),
        }
        for step in range(first, last + 1)
    ]
    points += [
        {**point, "split": "valid", "values": {"loss": 0.5, "f1": None}}
        for point in points
        if point["step"] % 1000 == 0
    ]
    with transaction(live.engine) as session:
        metrics.write(session, job_id, points)


@pytest.fixture(scope="module")
def job(live: Live) -> str:
    job = make_job(live.engine, live.project_id)
    for start in range(1, POINTS, 1000):
        write(live, job, start, min(start + 999, POINTS))
    return job


def get(live: Live, job: str, query: str, **headers: str) -> httpx.Response:
    with live.http() as http:
        answer = http.get(f"/fine_tuning/jobs/{job}/metrics?{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def series(answer: httpx.Response) -> dict[tuple[str, str], dict[str, Any]]:
    assert answer.json()["object"] == "fine_tuning.metric_series"
    return {(one["split"], one["name"]): one for one in answer.json()["data"]}


def test_few_points_that_look_like_all(live: Live, job: str) -> None:
    found = series(get(live, job, "points=50"))
    assert set(found) == {("train", "loss"), ("train", "lr"), ("valid", "f1"), ("valid", "loss")}
    loss = found["train", "loss"]
    assert len(loss["step"]) == len(loss["value"]) == 50
    assert (loss["step"][0], loss["step"][-1]) == (1, POINTS)
    assert loss["step"] == sorted(set(loss["step"]))
    # Every 160th point would have missed it.
    assert loss["value"][loss["step"].index(SPIKE)] == 50.0
    assert found["valid", "loss"]["step"] == [1000 * n for n in range(1, 9)]
    assert found["valid", "f1"]["step"] == []


def test_each_point_is_one_of_the_series(live: Live, job: str) -> None:
    loss = series(get(live, job, "points=500&names=loss&split=train"))["train", "loss"]
    wanted = [50.0 if step == SPIKE else 1 / step for step in loss["step"]]
    assert loss["value"] == wanted
    late = series(get(live, job, "points=500&names=loss&after_step=6000"))
    assert set(late) == {("train", "loss"), ("valid", "loss")}
    assert late["train", "loss"]["step"][0] > 6000


def test_whole_blocks_have_outlines_and_go_with_the_points(live: Live) -> None:
    job = make_job(live.engine, live.project_id)
    write(live, job, 1, POINTS)
    before = series(get(live, job, f"points={BLOCK}"))["train", "loss"]
    with transaction(live.engine) as session:
        assert metrics.outlined(session, job, "train") == 2 * BLOCK
        kept = session.scalars(select(func.sum(func.length(Outline.values)))).one()
        assert kept < POINTS * 8
        metrics.forget_after(session, job, BLOCK + 10)
        assert metrics.outlined(session, job, "train") == BLOCK
    gone = series(get(live, job, f"points={BLOCK}"))["train", "loss"]
    assert gone["step"][-1] == BLOCK + 10
    write(live, job, BLOCK + 11, POINTS)
    assert series(get(live, job, f"points={BLOCK}"))["train", "loss"] == before


def test_names_of_a_page(live: Live, job: str) -> None:
    page = get(live, job, "limit=2&names=lr").json()
    assert page["data"][0]["values"] == {"lr": 1e-4}
    assert page["has_more"]


def test_the_whole_as_csv(live: Live, job: str) -> None:
    answer = get(live, job, "", Accept="text/csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == POINTS + POINTS // 1000
    assert rows[999] == {
        "step": "1000",
        "split": "train",
        "f1": "",
        "loss": "0.001",
        "lr": "0.0001",
    }
    assert rows[1000] == {"step": "1000", "split": "valid", "f1": "", "loss": "0.5", "lr": ""}
    few = get(live, job, "points=50&format=csv&names=loss&split=valid").text.splitlines()
    assert few[:2] == ["name,split,step,value", "loss,valid,1000,0.5"]


def test_the_whole_as_arrow(live: Live, job: str) -> None:
    answer = get(live, job, "split=train", Accept="application/vnd.apache.arrow.stream")
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.column_names == ["step", "split", "loss", "lr"]
    assert table["step"].to_pylist() == list(range(1, POINTS + 1))
    assert table["loss"].to_numpy()[SPIKE - 1] == 50.0
    few = pa.ipc.open_stream(get(live, job, "points=50&format=arrow").content).read_all()
    assert few.column_names == ["name", "split", "step", "value"]
    assert few.num_rows == 50 + 50 + 8


def test_a_limit_holds_for_every_format(live: Live, job: str) -> None:
    lines = get(live, job, "format=csv&limit=7").text.splitlines()
    assert len(lines) == 8


def test_a_job_without_points(live: Live) -> None:
    job = make_job(live.engine, live.project_id)
    assert get(live, job, "points=50").json()["data"] == []
    assert get(live, job, "format=csv").text == "step,split\n"
    assert pa.ipc.open_stream(get(live, job, "format=arrow").content).read_all().num_rows == 0


def test_extremes_of_a_bucket_are_kept() -> None:
    values = np.random.default_rng(1).normal(size=BLOCK)
    kept = metrics.extremes(values)
    assert len(kept) <= BLOCK // 8 + 2
    for bucket in range(0, BLOCK, 16):
        of_bucket = values[bucket : bucket + 16]
        inside = values[kept[(kept >= bucket) & (kept < bucket + 16)]]
        assert (inside.min(), inside.max()) == (of_bucket.min(), of_bucket.max())
