"""A run as its user sees it: from the form by the growing curve to the end, and the model after."""

from __future__ import annotations

import re
import time
from pathlib import Path

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from playwright.sync_api import BrowserContext, Page, expect

from tests.ui.conftest import MODEL, RUN_PATIENCE

POINTS = re.compile(r"Training: ([\d,]+) points, from \S+ at step (\d+) to \S+ at step (\d+)")


def points(page: Page) -> tuple[int, int]:
    """How many points the loss has, and the last step."""
    label = page.get_by_role("img", name=re.compile("^Loss")).get_attribute("aria-label") or ""
    found = POINTS.search(label)
    return (int(found[1].replace(",", "")), int(found[3])) if found else (0, 0)


def grows(page: Page, beyond: int) -> int:
    """Wait until the curve goes on beyond a step; the last step then."""
    deadline = time.monotonic() + RUN_PATIENCE / 1000
    while (last := points(page)[1]) <= beyond:
        assert time.monotonic() < deadline, f"the curve stays at step {last}"
        page.wait_for_timeout(100)
    return last


def test_a_job_is_started_watched_cut_off_paused_resumed_and_cancelled(
    page: Page, context: BrowserContext, client: OpenAI, reviews: Path
) -> None:
    page.get_by_role("link", name="Files").click()
    page.locator("input[type=file]").set_input_files(reviews)
    expect(page.get_by_role("heading", name=reviews.name)).to_be_visible()
    expect(page.get_by_role("definition").filter(has_text="80")).to_be_visible()  # rows
    expect(page.get_by_role("rowheader", name="positive")).to_be_visible()

    page.get_by_role("link", name="Train on it").click()
    expect(page.get_by_label("Task", exact=True)).to_have_value("text-classification")
    page.get_by_label("Base model").fill(MODEL)
    page.get_by_label("Epochs", exact=True).fill("1000")
    page.get_by_label("Batch size", exact=True).fill("0")
    page.get_by_label("Name", exact=True).fill("watched")
    page.get_by_role("button", name="Start the job").click()
    expect(page.get_by_label("Batch size", exact=True)).to_have_js_property("validity.valid", False)
    page.get_by_label("Batch size", exact=True).fill("8")
    page.get_by_label("Max length", exact=True).fill("16")
    estimate = page.get_by_role("region", name="Estimate")
    expect(estimate).to_contain_text("10,000")  # steps
    page.get_by_role("button", name="Start the job").click()

    expect(page.get_by_role("heading", name="watched", level=1)).to_be_visible()
    job_id = page.url.rpartition("/")[2]
    state = page.get_by_role("region", name="State")
    expect(state).to_contain_text("running", timeout=RUN_PATIENCE)
    expect(state).to_contain_text("live")
    last = grows(page, grows(page, 0))

    context.set_offline(True)
    expect(state).to_contain_text("connection lost")
    stopped = points(page)[1]
    page.wait_for_timeout(1500)
    assert points(page)[1] == stopped
    context.set_offline(False)
    expect(state).to_contain_text("live")
    last = grows(page, max(last, stopped))
    page.reload()  # the past is loaded, the stream goes on behind it
    expect(state).to_contain_text("live")
    grows(page, last)

    page.get_by_role("button", name="Pause").click()
    expect(state).to_contain_text("paused", timeout=RUN_PATIENCE)
    page.get_by_role("button", name="Resume").click()
    expect(state).to_contain_text("running", timeout=RUN_PATIENCE)
    grows(page, points(page)[1])

    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(state).to_contain_text("cancelled", timeout=RUN_PATIENCE)
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    job = client.fine_tuning.jobs.retrieve(job_id)
    known, step = points(page)
    assert known == step == job.progress["step"]  # type: ignore[attr-defined]

    page.get_by_role("link", name="events").click()
    expect(page.get_by_text("Created fine-tuning job")).to_be_visible()
    page.get_by_role("link", name="configuration").click()
    expect(page.get_by_role("row", name=re.compile("^Batch size 8$"))).to_be_visible()


def test_a_job_is_cloned_with_a_change_and_compared(
    page: Page, client: OpenAI, finished: FineTuningJob
) -> None:
    page.goto(f"/#/jobs/{finished.id}")
    page.get_by_role("button", name="Clone").click()
    expect(page.get_by_role("heading", name="Clone of page")).to_be_visible()
    page.get_by_label("Learning rate", exact=True).fill("0.001")
    page.get_by_label("Name", exact=True).fill("faster")
    page.get_by_role("button", name="Start the job").click()
    expect(page.get_by_role("heading", name="faster", level=1)).to_be_visible()
    page.get_by_role("link", name=finished.id).wait_for()  # cloned from
    clone = client.fine_tuning.jobs.retrieve(page.url.rpartition("/")[2])
    chosen = clone.method.supervised.hyperparameters  # type: ignore[union-attr]
    assert chosen.batch_size == 8  # type: ignore[union-attr]
    assert chosen.learning_rate == 0.001  # type: ignore[union-attr]

    expect(page.get_by_role("region", name="State")).to_contain_text(
        "succeeded", timeout=RUN_PATIENCE
    )
    page.get_by_role("link", name="Jobs").click()
    for name in ("faster", "page"):
        page.get_by_role("checkbox", name=f"Choose {name} for comparison").first.check()
    page.get_by_role("button", name="Compare 2").click()
    row = page.get_by_role("row", name=re.compile("resolved.learning_rate"))
    expect(row).to_contain_text("0.001")
    overlaid = page.get_by_role("img", name=re.compile("^Loss"))
    expect(overlaid).to_have_attribute(
        "aria-label", re.compile("faster: 10 points.*page: 10 points")
    )


def test_a_model_is_downloaded_and_tried(
    page: Page, client: OpenAI, finished: FineTuningJob
) -> None:
    model = str(finished.fine_tuned_model)
    page.get_by_role("link", name="Models").click()
    page.get_by_role("link", name=model).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download config.json").click()
    there = client.get(f"/models/{model}/files/config.json", cast_to=str)
    assert Path(download.value.path()).read_text() == there

    page.get_by_label("Text", exact=True).fill("a great film")
    page.get_by_role("button", name="Try", exact=True).click()
    answer = page.locator(".answer")
    expect(answer).to_contain_text("positive", timeout=RUN_PATIENCE)
