"""The events of a job: those that come, and those of long ago."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from playwright.sync_api import Locator, Page, expect

import models.every  # noqa: F401  (all tables, which refer to each other)
from models import events
from models.db import Engine, sync_engine, transaction
from models.jobs import Job
from tests.conftest import Service


@pytest.fixture(scope="module")
def engine(service: Service) -> Iterator[Engine]:
    made = sync_engine((service.data_dir / "database_url").read_text().strip())
    yield made
    made.dispose()


@pytest.fixture
def waiting(client: OpenAI, finished: FineTuningJob) -> Iterator[str]:
    """A job that waits for a machine which this service does not have."""
    job = client.fine_tuning.jobs.create(
        model=finished.model,
        training_file=finished.training_file,
        suffix="talkative",
        extra_body={"resources": {"device": "cuda"}},
    )
    yield job.id
    client.fine_tuning.jobs.cancel(job.id)


def tell(engine: Engine, job_id: str, numbers: range, type: str = "message") -> None:
    with transaction(engine) as session:
        session.get_one(Job, job_id, with_for_update=True)
        for number in numbers:
            events.add(session, job_id, f"Word {number}", type=type)


def words(listed: Locator) -> list[int]:
    found = (re.search(r"Word (\d+)$", text) for text in listed.all_inner_texts())
    return [int(word[1]) for word in found if word]


def test_older_events_are_read_by_keyboard(
    page: Page, client: OpenAI, engine: Engine, waiting: str
) -> None:
    client.fine_tuning.jobs.cancel(waiting)
    tell(engine, waiting, range(1, 121))
    tell(engine, waiting, range(250), type="metrics")  # one whole page and more, none of it shown
    tell(engine, waiting, range(121, 141))
    page.goto(f"/#/jobs/{waiting}?tab=events")
    listed = page.locator(".events li")
    older = page.get_by_role("button", name="Older events")
    expect(listed).to_have_count(20)

    older.press("Enter")
    expect(listed).to_have_count(50)
    expect(listed.nth(20)).to_be_focused()
    expect(listed.nth(20)).to_contain_text("Word 120")
    page.keyboard.press("Tab")
    expect(older).to_be_focused()
    page.keyboard.press("Enter")
    expect(listed.last).to_contain_text("Created fine-tuning job")
    expect(older).to_be_hidden()
    assert words(listed) == list(range(140, 0, -1))


def test_what_comes_stands_above_the_older_ones(page: Page, engine: Engine, waiting: str) -> None:
    page.goto(f"/#/jobs/{waiting}?tab=events")
    state = page.get_by_role("region", name="State")
    expect(state).to_contain_text("queued")
    expect(state).to_contain_text("live")
    tell(engine, waiting, range(1, 121))
    listed = page.locator(".events li")
    expect(listed.first).to_contain_text("Word 120")
    expect(listed).to_have_count(100)
    page.get_by_role("button", name="Older events").click()
    expect(listed.last).to_contain_text("Created fine-tuning job")
    expect(listed.nth(100)).to_be_focused()

    tell(engine, waiting, range(121, 124))
    expect(listed.first).to_contain_text("Word 123")
    assert words(listed) == list(range(123, 0, -1))
    page.context.set_offline(True)
    tell(engine, waiting, range(124, 127))
    page.context.set_offline(False)
    expect(listed.first).to_contain_text("Word 126")
    assert words(listed) == list(range(126, 0, -1))
    expect(page).to_have_title("talkative · Luthier")


def test_a_dialog_gives_the_focus_back(page: Page, waiting: str) -> None:
    page.goto(f"/#/jobs/{waiting}?tab=events")
    cancel = page.get_by_role("button", name="Cancel")
    for answer in ("Leave it", None):
        cancel.press("Enter")
        dialog = page.get_by_role("dialog", name="Cancel talkative?")
        expect(dialog).to_be_visible()
        if answer is None:
            page.keyboard.press("Escape")
        else:
            dialog.get_by_role("button", name=answer).press("Enter")
        expect(dialog).to_be_hidden()
        expect(cancel).to_be_focused()
