"""The Dockerfile, checked as far as it can be without an engine: paths, stages, the wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.deploy import compose
from tests.deploy.compose import ROOT


class Stage(NamedTuple):
    name: str
    parent: str
    lines: list[str]


def _stages() -> dict[str, Stage]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    stages: dict[str, Stage] = {}
    for line in text.splitlines():
        if found := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            current = Stage(found[2], found[1], [])
            stages[current.name] = current
        elif stages and line and not line.startswith("#"):
            current.lines.append(line)
    return stages


STAGES = _stages()


def _ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the top level out; the last line that fits decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and fnmatch(path, line.removeprefix("!")):
            ignored = not line.startswith("!")
    return ignored


def test_everything_copied_exists_and_reaches_the_build() -> None:
    copied = []
    for stage in STAGES.values():
        for line in stage.lines:
            if line.startswith("COPY --from="):
                source = line.split()[1].removeprefix("--from=")
                assert source in STAGES, line
            elif line.startswith("COPY "):
                copied += line.split()[1:-1]
    assert copied
    for path in copied:
        assert (ROOT / path).exists(), path
        assert not _ignored(path.rstrip("/")), f"{path} is kept out by .dockerignore"


def test_secrets_and_data_stay_out_of_the_build() -> None:
    for path in (".env", "luthier-data", ".git", ".venv", "demo-data", "tests"):
        assert _ignored(path), path


def test_every_package_of_the_distribution_is_copied() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = packages["tool"]["setuptools"]["packages"]["find"]["include"]
    lines = STAGES["build-server"].lines
    for name in (pattern.rstrip("*") for pattern in included):
        assert f"COPY {name}/ {name}/" in lines, name


@pytest.mark.parametrize("name", ["server", "worker"])
def test_a_final_image_runs_as_an_ordinary_user_and_says_how_it_is(name: str) -> None:
    lines = STAGES[name].lines
    assert [line for line in lines if line.startswith("USER ")] == ["USER luthier"]
    [check] = [line for line in lines if line.startswith("HEALTHCHECK ")]
    assert '"luthier-server", "health"' in check


def test_only_the_worker_image_has_torch() -> None:
    trainer = '".[trainer]"'
    assert trainer not in " ".join(STAGES["build-server"].lines)
    assert trainer in " ".join(STAGES["build-worker"].lines)
    assert "COPY --from=build-server /opt/luthier /opt/luthier" in STAGES["server"].lines
    assert "COPY --from=build-worker /opt/luthier /opt/luthier" in STAGES["worker"].lines


@pytest.mark.parametrize(
    ("variant", "wheels", "status", "index"),
    [
        ("cpu", "https://wheels/cpu", 0, True),
        ("cpu", "", 0, False),
        ("cuda", "https://wheels/cpu", 0, False),
        ("tpu", "", 1, False),
    ],
)
def test_the_variant_chooses_the_build_of_torch(
    variant: str, wheels: str, status: int, index: bool, tmp_path: Path
) -> None:
    """The worker's own RUN line, run with a `pip` that prints its arguments."""
    [run] = [line for line in STAGES["build-worker"].lines if line.startswith("RUN ")]
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "$@"\n')
    pip.chmod(0o700)
    script = run.removeprefix("RUN ").replace("/opt/luthier/bin/pip", str(pip))
    done = subprocess.run(
        ["sh", "-c", script],
        env={"VARIANT": variant, "CPU_INDEX_URL": wheels},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert (f"--extra-index-url {wheels}" in done.stdout) == index
    if status == 0:
        assert done.stdout.split()[:3] == ["install", "-c", "requirements.lock"]


def test_compose_builds_stages_that_exist() -> None:
    services = compose.load(dict.fromkeys(compose.required(), "x"))["services"]
    built = {name: service["build"] for name, service in services.items() if "build" in service}
    assert set(built) == {"migrate", "api", "control", "worker", "worker-gpu"}
    for build in built.values():
        assert build["target"] in STAGES
        assert build.get("args", {}).get("VARIANT", "cpu") in ("cpu", "cuda")


def test_the_lock_pins_every_dependency_that_the_images_install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements.lock").read_text()
    pinned = {_canonical(line.split("==")[0]) for line in lock.splitlines() if "==" in line}
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    names = {_canonical(re.split(r"[\[<>=~! ;]", line)[0]) for line in wanted}
    assert names <= pinned, names - pinned
    assert "+" not in lock.split("\n", 1)[1]
    assert "://" not in lock


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_copied_suffices_to_build_and_the_wheel_holds_all_of_it(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for line in STAGES["build-server"].lines:
        if line.startswith("COPY ") and not line.startswith("COPY --from="):
            for path in line.split()[1:-1]:
                if (ROOT / path).is_dir():
                    shutil.copytree(ROOT / path, context / path)
                else:
                    shutil.copy(ROOT / path, context)
    expected = {
        str(path.relative_to(context))
        for suffix in ("*.py", "*.mako")
        for path in context.rglob(suffix)
    }
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*command, tmp_path, context], check=True)
    [wheel] = tmp_path.glob("luthier_server-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {"migrations/env.py", "migrations/script.py.mako", "server/up.py"} <= expected
    assert expected <= held, expected - held
    page = {str(path.relative_to(ROOT)) for path in (ROOT / "api/static").rglob("*.*")}
    assert {Path(name).suffix for name in page} == {".html", ".js", ".css", ".svg"}
    assert page <= held, page - held
    assert "COPY --from=page /src/api/static/ api/static/" in STAGES["build-server"].lines
