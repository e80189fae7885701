"""Models of pictures, of recordings and of many languages, tried in the page."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from openai import OpenAI
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, expect

import models.every  # noqa: F401  (all tables, which refer to each other)
from core.settings import Settings
from core.storage import ObjectStore
from models.db import sync_engine
from tests.conftest import Service
from tests.rows import make_model, make_project
from tests.ui.conftest import RUN_PATIENCE, trained

COLOURS = {"red": (230, 30, 30), "blue": (30, 30, 230)}


def picture(colour: str, side: int = 32) -> bytes:
    packed = io.BytesIO()
    Image.new("RGB", (side, side), COLOURS[colour]).save(packed, "PNG")
    return packed.getvalue()


def recording(seconds: float = 0.5, rate: int = 16_000) -> bytes:
    packed = io.BytesIO()
    samples = 0.4 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    soundfile.write(packed, samples, rate, format="WAV")
    return packed.getvalue()


@pytest.fixture(scope="module")
def seeing(client: OpenAI) -> str:
    """A model that was trained from scratch to tell red pictures from blue ones."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(16):
            for colour in COLOURS:
                archive.writestr(f"{colour}/{number}.png", picture(colour, 24 + number))
    file = client.files.create(file=("colours.zip", packed.getvalue()), purpose="fine-tune")
    job = trained(
        client,
        model="scratch/vit-tiny",
        training_file=file.id,
        suffix="colours",
        hyperparameters={"n_epochs": 8, "batch_size": 8},
        extra_body={"tuning": "scratch"},
    )
    assert job.fine_tuned_model is not None
    return job.fine_tuned_model


@pytest.fixture
def register(service: Service) -> Iterator[Callable[[Path, str], str]]:
    """Makes a model of a project from such a folder, for such a task."""
    settings = Settings(data_dir=service.data_dir)
    engine = sync_engine((service.data_dir / "database_url").read_text().strip())
    store = ObjectStore.from_settings(settings)
    try:
        yield lambda folder, task: make_model(engine, store, make_project(engine), folder, task)
    finally:
        engine.dispose()


@pytest.fixture
def hearing(register: Callable[[Path, str], str], tmp_path: Path) -> str:
    """A model of recordings that has learnt nothing yet of its two hundred sounds."""
    from tests.training.sounds import tiny_ast

    return register(tiny_ast(tmp_path / "ast"), "audio-classification")


@pytest.fixture
def translating(register: Callable[[Path, str], str], tmp_path: Path) -> str:
    """A model of many languages that has learnt none."""
    from tests.training.test_languages import base

    return register(base(tmp_path / "nllb", "nllb"), "translation")


def choose(page: Page, label: str, name: str, kind: str, packed: bytes) -> None:
    file: FilePayload = {"name": name, "mimeType": kind, "buffer": packed}
    page.get_by_label(label, exact=True).set_input_files(file)


def scores(answer: Locator) -> dict[str, float]:
    rows: list[Any] = answer.get_by_role("row").evaluate_all(
        "rows => rows.map(row => [row.querySelector('th').innerText,"
        " row.querySelector('meter').value])"
    )
    return dict(rows)


def test_a_picture_is_tried(page: Page, seeing: str) -> None:
    page.goto(f"/#/models/{seeing}")
    answer = page.locator(".answer")
    for colour in COLOURS:
        choose(page, "Picture", f"{colour}.png", "image/png", picture(colour))
        expect(answer).to_be_hidden()  # that of the picture before
        page.get_by_role("button", name="Try", exact=True).click()
        expect(answer.get_by_role("row")).to_have_count(2, timeout=RUN_PATIENCE)
        told = scores(answer)
        assert told.keys() == COLOURS.keys()
        assert sum(told.values()) == pytest.approx(1, abs=1e-3)
        assert next(iter(told)) == colour  # the likeliest comes first
        shown = answer.get_by_role("img", name="What was tried")
        expect(shown).to_have_js_property("naturalWidth", 32)

    choose(page, "Picture", "letter.png", "image/png", b"Dear model,")
    page.get_by_role("button", name="Try", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("not an image", timeout=RUN_PATIENCE)
    expect(answer).to_be_hidden()


def test_a_recording_is_tried(page: Page, hearing: str) -> None:
    page.goto(f"/#/models/{hearing}")
    choose(page, "Recording", "tone.wav", "audio/wav", recording())
    page.get_by_role("button", name="Try", exact=True).click()
    answer = page.locator(".answer")
    expect(answer.get_by_role("row")).to_have_count(20, timeout=RUN_PATIENCE)
    found = list(scores(answer).values())
    assert found == sorted(found, reverse=True)
    assert 0 < sum(found) <= 1


def test_a_text_is_translated_into_a_language(page: Page, translating: str) -> None:
    page.goto(f"/#/models/{translating}")
    page.get_by_label("Text", exact=True).fill("dog")
    page.get_by_role("button", name="Try", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("several languages", timeout=RUN_PATIENCE)
    page.get_by_label("To", exact=True).fill("de")
    page.get_by_role("button", name="Try", exact=True).click()
    expect(page.locator(".answer")).to_contain_text("took", timeout=RUN_PATIENCE)
    expect(page.get_by_role("alert")).to_be_hidden()
