from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.material import JobFolder, job_folder, tiny_bert


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> JobFolder:
    return job_folder(tmp_path / "job", tiny_model)
