"""The curves: what one does with them, and a series of a million points."""

from __future__ import annotations

import re

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from playwright.sync_api import Page, expect
from sqlalchemy import text

import models.every  # noqa: F401  (all tables, which refer to each other)
from core.clock import now
from models import metrics
from models.db import sync_engine, transaction
from tests.conftest import Service

MILLION = 1_000_000
LONGEST = 1000
"""Milliseconds from the server's answer to the drawn curves."""

DRAWN = """() => new Promise(done => {
  const look = () => {
    const answer = performance.getEntriesByType("resource").find(
      one => one.name.includes("/metrics?points=4000") && one.responseEnd > 0);
    const chart = document.querySelector('[role=img][aria-label^="Loss"] canvas');
    if (answer && chart) done(performance.now() - answer.responseEnd);
    else requestAnimationFrame(look);
  };
  look();
})"""


FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""By then what has changed is drawn."""


def test_zoom_smoothing_and_log_scale(page: Page, finished: FineTuningJob) -> None:
    page.goto(f"/#/jobs/{finished.id}")
    loss = page.get_by_role("img", name=re.compile("^Loss"))
    first, last = page.get_by_label("Steps"), page.get_by_label("to", exact=True)
    expect(last).to_have_value("10")

    plot = loss.locator(".u-over").bounding_box()
    assert plot
    page.mouse.move(plot["x"] + plot["width"] * 0.3, plot["y"] + 50)
    page.mouse.down()
    page.mouse.move(plot["x"] + plot["width"] * 0.6, plot["y"] + 60, steps=4)
    page.mouse.up()
    expect(first).to_have_value("3")
    expect(last).to_have_value(re.compile("^[67]$"))
    loss.locator(".u-over").dblclick()
    expect(last).to_have_value("10")
    last.fill("5")
    last.press("Enter")  # by the keyboard as well
    expect(page.get_by_role("button", name="All steps")).to_be_enabled()

    page.get_by_label("Smoothing").fill("0.9")
    expect(loss.get_by_text("Training, as measured")).to_be_visible()
    # What is drawn on the canvas now: a change of scale puts another in its place.
    drawn = "document.querySelector('[role=img][aria-label^=Loss] canvas').toDataURL()"
    page.evaluate(FRAMES)
    linear = page.evaluate(drawn)
    page.get_by_label("Log scale").check()
    page.wait_for_function(f"linear => {drawn} !== linear", arg=linear)
    page.get_by_label("Log scale").uncheck()
    page.wait_for_function(f"linear => {drawn} === linear", arg=linear)


@pytest.mark.slow
def test_a_million_points_open_at_once(
    page: Page, service: Service, client: OpenAI, finished: FineTuningJob
) -> None:
    job = client.fine_tuning.jobs.create(
        model=finished.model, training_file=finished.training_file, suffix="million"
    )
    client.fine_tuning.jobs.cancel(job.id)
    engine = sync_engine((service.data_dir / "database_url").read_text().strip())
    last_block = MILLION // metrics.BLOCK * metrics.BLOCK
    with transaction(engine) as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        session.execute(
            text(
                "INSERT INTO job_metrics (job_id, split, step, values, created_at) "
                "SELECT :job, 'train', step, jsonb_build_object('loss', "
                "exp(-step / 300000.0) + 0.05 * random()), now() "
                "FROM generate_series(1, :million) step WHERE step <> :last_block"
            ),
            {"job": job.id, "million": MILLION, "last_block": last_block},
        )
        point = {"split": "train", "step": last_block, "values": {"loss": 0.1}, "created_at": now()}
        metrics.write(session, job.id, [point])  # as the worker does, with the outlines
    engine.dispose()

    page.goto(f"/#/jobs/{job.id}")
    assert page.evaluate(DRAWN) < LONGEST
    label = page.get_by_role("img", name=re.compile("^Loss")).get_attribute("aria-label")
    assert re.search(
        r"Training: [1-4]\d{3} points, .* at step 1 to .* at step 1000000$", label or ""
    )
