"""A real browser on the live service. Without Chromium these tests are skipped, and say so."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from api.page import STATIC
from tests.conftest import Service

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
MODEL = "all-MiniLM-L6-v2"
PATIENCE = 20_000
"""Milliseconds for what the page is to show; a machine that tests is busy."""
RUN_PATIENCE = 120_000
"""The same until a run has begun, ended or goes on: its trainer may have to load first."""
FLAGS = (
    # It calls nobody but the service.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one module: while it is open its event loop runs, beside which no other test's can."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    if not (STATIC / "index.html").is_file():
        pytest.fail("the page is not built: run `make page`")
    expect.set_options(timeout=PATIENCE)
    sandbox = os.geteuid() != 0  # Chromium has none as root
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(FLAGS), chromium_sandbox=sandbox
        ) as running,
    ):
        yield running


@pytest.fixture
def context(browser: Browser, service: Service) -> Iterator[BrowserContext]:
    """A fresh browser profile. Whatever goes wrong on the page fails the test."""
    problems: list[str] = []
    with browser.new_context(base_url=service.url, accept_downloads=True) as made:
        made.set_default_timeout(PATIENCE)
        made.on("weberror", lambda error: problems.append(str(error.error)))
        made.on(
            "console",
            lambda said: problems.append(said.text) if "Security Policy" in said.text else None,
        )
        made.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((service.url, "blob:", "data:"))
                else problems.append(f"a request to {asked.url}")
            ),
        )
        yield made
    assert problems == []


@pytest.fixture
def page(context: BrowserContext, service: Service) -> Page:
    """The page, signed in as a user would."""
    opened = context.new_page()
    opened.goto("/")
    opened.get_by_label("API key").fill(service.key)
    opened.get_by_role("button", name="Sign in").click()
    opened.get_by_role("heading", name="Jobs").wait_for()
    return opened


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=service.base_url, api_key=service.key) as opened:
        yield opened


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data file that can be told apart in a few steps."""
    path = tmp_path_factory.mktemp("page") / "reviews.csv"
    rows = "".join(
        f"a {word} film number {number},{label}\n"
        for number in range(40)
        for word, label in (("great", "positive"), ("dull", "negative"))
    )
    path.write_text("text,label\n" + rows)
    return path


def trained(client: OpenAI, **asked: Any) -> FineTuningJob:
    """A job that has succeeded."""
    job = client.fine_tuning.jobs.create(seed=1, **asked)
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.3)
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.fine_tuned_model, job.error
    return job


@pytest.fixture(scope="session")
def finished(client: OpenAI, reviews: Path) -> FineTuningJob:
    """A short job that has succeeded."""
    return trained(
        client,
        model=MODEL,
        training_file=client.files.create(file=reviews, purpose="fine-tune").id,
        suffix="page",
        hyperparameters={"n_epochs": 1, "batch_size": 8},
        extra_body={"task": "text-classification"},
    )
