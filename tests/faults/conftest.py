"""One fleet for the whole session. Whatever a test did to it, the invariants hold after it."""

from __future__ import annotations

import os
import random
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet, running_fleet
from tests.faults.invariants import assert_invariants
from tests.training.material import tiny_bert


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def whole_fleet(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), tiny_model) as running:
        yield running


@pytest.fixture
def fleet(whole_fleet: Fleet) -> Iterator[Fleet]:
    """Database, broker, API and control running. Afterwards all is mended, every job is brought
    to an end, and the invariants are checked."""
    whole_fleet.mend()
    yield whole_fleet
    whole_fleet.mend()
    whole_fleet.finish_everything()
    assert_invariants(whole_fleet)


LOG_BYTES = 6000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failing test shows what the fleet's processes said last."""
    report = yield
    fleet = getattr(item, "funcargs", {}).get("fleet")
    if report.failed and fleet is not None:
        for log in sorted(fleet.folder.glob("*.log")):
            report.sections.append((log.name, log.read_text(errors="replace")[-LOG_BYTES:]))
    return report


@pytest.fixture
def rng() -> random.Random:
    """Seeded by LUTHIER_FAULTS_SEED, or by chance; a failing test shows the line."""
    seed = int(os.environ.get("LUTHIER_FAULTS_SEED", random.randrange(2**32)))
    print(f"to repeat: LUTHIER_FAULTS_SEED={seed}")
    return random.Random(seed)
