"""Each bad file is refused with its code, its place and words that say what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.ingest.bad import Bad, archives, media, tables, text_tasks
from tests.ingest.reading import refused

CASES = [*tables.CASES, *text_tasks.CASES, *archives.CASES, *media.CASES]
ROOT = Path(__file__).parents[2]


def test_there_are_enough_and_none_twice() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 120


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_file(tmp_path: Path, case: Bad) -> None:
    error = refused(
        tmp_path, case.content, task=case.task, limits=case.limits, **dict(case.options)
    )
    first = error.details[0]
    assert first["code"] == case.code, str(error)
    where = first["entry"] if isinstance(case.at, str) else first["line"] or first["row"]
    assert where == case.at, str(error)
    assert case.says in str(error), str(error)
    assert error.param in ("training_file", "validation_file")
    assert len(str(error)) < 1000
    assert "/tmp" not in str(error), "no path of the server's is shown"


def test_every_code_is_documented_and_every_documented_code_exists() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "ingest").rglob("*.py"))
    raised = set(
        re.findall(
            r"(?:BadValue\(|\.add\(|\.fatal\(|_refuse\(|Finding\(|code=|return|remark = \()"
            r'\s*"([a-z]+_[a-z_]+)"',
            source,
        )
    )
    page = (ROOT / "docs" / "data.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_]+)` \| [^|]* \|$", page, re.MULTILINE))
    assert raised - documented == set()
    assert {case.code for case in CASES} - documented == set()
    assert {code for code in documented if f'"{code}"' not in source} == set()
