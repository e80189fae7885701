"""The tiny model and a running fleet, one for each module of faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet, running_fleet
from tests.training.material import tiny_bert


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Fleet]:
    """Database, broker, API and control running; a test starts the workers that it kills."""
    with running_fleet(tmp_path_factory.mktemp("fleet"), tiny_model) as running:
        running.start_api()
        running.start("control")
        yield running
