from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models import fit
from models.catalogue import CONFIGS
from models.tasks import TRAINABLE
from training import architectures, pretrained
from training.tasks import create

from tests.training.cases import CASES  # isort: skip


def test_the_table_is_what_transformers_can_load() -> None:
    """After an upgrade: python -m training.architectures > models/architectures.json"""
    path = Path(fit.__file__).with_name("architectures.json")
    assert path.read_text() == architectures.table()


@pytest.mark.parametrize("task", TRAINABLE)
def test_what_the_cases_train_is_in_the_table(task: str, tmp_path: Path) -> None:
    bases = {case.base for case in CASES if case.task == task}
    for number, base in enumerate(bases):
        config = pretrained.load_config(base(tmp_path / str(number)))
        assert config.model_type in fit.architectures()[task]


@pytest.mark.parametrize("folder", sorted(CONFIGS.iterdir()), ids=lambda path: path.name)
def test_the_configs_that_come_along_make_small_models(folder: Path) -> None:
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    task = next(name for name, kinds in fit.architectures().items() if kind in kinds)
    case = next(case for case in CASES if case.task == task)
    model = create(case.spec(tuning="scratch"), print).load(folder, exact=False)
    assert sum(p.numel() for p in model.parameters()) < 5e6
    assert all(torch.isfinite(p).all() for p in model.parameters())
