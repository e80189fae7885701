"""Every page at two widths and in both themes: nothing sticks out, and the pictures are kept.

They are in ui/screenshots, to be looked at.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from playwright.sync_api import Page

from tests.ui.conftest import MODEL

PICTURES = Path(__file__).parents[2] / "ui/screenshots"
WIDTHS = (390, 1280)
THEMES = ("light", "dark")


@pytest.fixture(scope="module")
def broken(client: OpenAI) -> str:
    """A file whose check ends badly."""
    content = b'text,label\n"A, film",good\nno label here\nanother,bad,extra\n,good\n'
    file = client.files.create(file=("broken.csv", content), purpose="fine-tune")
    client.files.wait_for_processing(file.id, poll_interval=0.2)
    return file.id


def test_every_page_fits_and_has_a_heading(
    page: Page, finished: FineTuningJob, broken: str
) -> None:
    job, model = finished.id, str(finished.fine_tuned_model)
    pages = {  # each with what it has when it is whole
        "jobs": ("/jobs", ".spark"),
        "curves": (f"/jobs/{job}", ".u-over"),
        "events": (f"/jobs/{job}?tab=events", ".events li"),
        "checkpoints": (f"/jobs/{job}?tab=checkpoints", "tbody tr"),
        "results": (f"/jobs/{job}?tab=results", ".report"),
        "data": (f"/jobs/{job}?tab=data", "meter"),
        "logs": (f"/jobs/{job}?tab=logs", ".log, .empty"),
        "configuration": (f"/jobs/{job}?tab=configuration", ".tree tr"),
        "files": ("/files", "tbody tr"),
        "file": (f"/files/{broken}", ".problem"),
        "models": ("/models", "tbody tr"),
        "model": (f"/models/{model}", "tbody tr"),
        "new": (
            f"/new?task=text-classification&model={MODEL}&file={finished.training_file}",
            ".estimate dl",
        ),
        "compare": (f"/compare?job={job}&job={job}", ".u-over"),
    }
    PICTURES.mkdir(exist_ok=True)
    for name, (path, whole) in pages.items():
        page.goto(f"/#{path}")
        page.locator(whole).first.wait_for()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 844})
            for theme in THEMES:
                page.emulate_media(color_scheme=theme)
                page.screenshot(path=PICTURES / f"{name}-{width}-{theme}.png", full_page=True)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} is {wide} wide on a screen of {width}"
        assert page.get_by_role("heading", level=1).inner_text()
        assert page.locator("main").inner_text().strip(), name
        unnamed = page.locator("main :is(button, input, select, textarea, a)").evaluate_all(
            "all => all.filter(one => !one.hidden && !one.ariaHidden && !one.labels?.length"
            " && !one.ariaLabel && !one.textContent.trim()).map(one => one.outerHTML)"
        )
        assert unnamed == [], name
