"""What the README tells a newcomer to type is typed here, against the live service."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from core.settings import Settings
from tests.conftest import Service, clean_environment

README = Path(__file__).parents[2] / "README.md"
MARK = "<!-- run by tests/server/test_readme.py -->\n"
BLOCK = re.compile(re.escape(MARK) + r"```(sh|python)\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall(README.read_text())


def test_every_curl_line_stands_in_a_block_that_is_run() -> None:
    text = README.read_text()
    run = "".join(code for language, code in BLOCKS if language == "sh")
    lines = [line for line in text.splitlines() if re.match(r".*\bcurl -", line)]
    assert len(lines) >= 8
    assert [line for line in lines if line not in run] == []


def test_every_setting_that_is_named_exists() -> None:
    """An unknown LUTHIER_ variable is ignored, so a misspelt one would be found by nobody."""
    ours = {f"LUTHIER_{name.upper()}" for name in Settings.model_fields}
    clients = {"LUTHIER_BASE_URL", "LUTHIER_API_KEY"}
    of_compose_alone = {"LUTHIER_PUBLISH"}
    for path in ("README.md", "docker-compose.yml", "Dockerfile"):
        named = set(re.findall(r"\bLUTHIER_[A-Z0-9_]+", (README.parent / path).read_text()))
        assert named
        assert named <= ours | clients | of_compose_alone, path


@pytest.fixture(scope="module")
def desk(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which `luthier-data` is that of the running service."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "luthier-data").symlink_to(service.data_dir)
    return folder


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_block_works(number: int, desk: Path, service: Service) -> None:
    language, code = BLOCKS[number]
    bin_folder = Path(sys.executable).parent
    environment = clean_environment()
    environment["PATH"] = f"{bin_folder}:{environment['PATH']}"
    command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[language]
    done = subprocess.run(
        [*command, code],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{service.log()[-4000:]}"


def test_the_weights_were_downloaded(desk: Path) -> None:
    """Runs after the blocks above, which share the desk."""
    assert (desk / "model.safetensors").stat().st_size > 1_000_000
    assert (desk / "reviews-model.tar").stat().st_size > (desk / "model.safetensors").stat().st_size
    assert (desk / "reviews-model/model.safetensors").exists()
