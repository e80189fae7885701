from __future__ import annotations

import os
from pathlib import Path

from worker.scratch import make_room


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    for used, name in enumerate(["old", "new", "older"]):
        file = tmp_path / f"{name}.arrow"
        file.write_bytes(b"x" * 100)
        os.utime(file, (0, [20, 30, 10][used]))
    (tmp_path / "under-way.part").write_bytes(b"x" * 1000)
    with (tmp_path / "older.arrow").open("rb") as mapped:
        make_room(tmp_path, 250)
        assert mapped.read() == b"x" * 100
    assert {path.name for path in tmp_path.iterdir()} == {
        "old.arrow",
        "new.arrow",
        "under-way.part",
    }
    make_room(tmp_path, 100)
    assert {path.name for path in tmp_path.iterdir()} == {"new.arrow", "under-way.part"}
    make_room(tmp_path, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"under-way.part"}


def test_what_another_worker_removes_meanwhile_is_no_error(tmp_path: Path) -> None:
    """It is listed, and gone when it is looked at: as a link is whose target is gone."""
    (tmp_path / "gone.arrow").symlink_to(tmp_path / "nowhere")
    (tmp_path / "there.arrow").write_bytes(b"x" * 100)
    make_room(tmp_path, 0)
    assert not (tmp_path / "there.arrow").exists()
