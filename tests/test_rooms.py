"""The rooms stay apart at run time too: what the import contract cannot see."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = "import sys, {module}; print([name for name in {names!r} if name in sys.modules])"


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("api.app", ["torch", "transformers", "training", "worker"]),
        ("worker.main", ["torch", "transformers", "training", "api", "fastapi"]),
        ("server.cli", ["torch", "transformers", "training", "api", "worker"]),
        ("training.run", ["sqlalchemy", "psycopg", "celery", "redis", "fastapi", "obstore"]),
    ],
)
def test_a_room_loads_nothing_that_is_not_its_own(module: str, never: list[str]) -> None:
    code = LOADED.format(module=module, names=never)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
