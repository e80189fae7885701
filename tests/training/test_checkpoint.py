from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from training import checkpoint
from training.failures import CheckpointCorrupt


def save_model(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")


def write(checkpoints: Path, step: int, best: Path | None = None) -> Path:
    filled = checkpoint.fill(
        checkpoints, step, save_model=save_model, state={"step": step}, best=best
    )
    return filled.seal().path


def test_a_checkpoint_holds_what_its_manifest_says(tmp_path: Path) -> None:
    written = checkpoint.fill(
        tmp_path,
        12,
        save_model=save_model,
        state={"step": 12, "tensor": torch.arange(3)},
        best=None,
    ).seal()
    assert written.path == tmp_path / "step-12"
    manifest = json.loads((written.path / "manifest.json").read_text())
    assert manifest["step"] == 12
    assert set(manifest["files"]) == {"config.json", "model.safetensors", "training_state.pt"}
    sizes = {name: (written.path / name).stat().st_size for name in manifest["files"]}
    assert {name: file["bytes"] for name, file in manifest["files"].items()} == sizes
    assert written.bytes == sum(sizes.values())
    state = checkpoint.read_state(written.path)
    assert torch.equal(state["tensor"], torch.arange(3))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"weighty"),
        lambda folder: (folder / "model.safetensors").write_bytes(b"weigh"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").unlink(),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: object) -> None:
    folder = write(tmp_path, 1)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(CheckpointCorrupt):
        checkpoint.read_state(folder)


def test_training_state_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('ran')",)

    filled = checkpoint.fill(tmp_path, 1, save_model=save_model, state={"evil": Evil()}, best=None)
    folder = filled.seal().path
    with pytest.raises(Exception, match="weights_only"):
        checkpoint.read_state(folder)


def test_a_failure_while_writing_leaves_the_last_checkpoint_and_nothing_else(
    tmp_path: Path,
) -> None:
    write(tmp_path, 1)

    def fails(folder: Path) -> None:
        save_model(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoint.fill(tmp_path, 2, save_model=fails, state={}, best=None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    checkpoint.verify(tmp_path / "step-1")


def test_the_newest_two_stay_and_carry_the_best_with_them(tmp_path: Path) -> None:
    best = write(tmp_path, 9)
    (best / "model.safetensors").write_bytes(b"best")
    for step in (10, 11, 100):
        write(tmp_path, step, best=checkpoint.best_weights(best))
        checkpoint.retire(tmp_path)
        best = tmp_path / f"step-{step}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-100", "step-11"]
    weights = checkpoint.best_weights(best)
    assert (weights / "model.safetensors").read_bytes() == b"best"
    assert sorted(path.name for path in weights.iterdir()) == ["config.json", "model.safetensors"]
    checkpoint.verify(best)


def test_a_start_clears_what_a_killed_run_left(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    for step in (3, 6, 9):
        write(checkpoints, step)
    (checkpoints / "step-12.tmp").mkdir()
    (tmp_path / "output.tmp").mkdir()
    (tmp_path / "train.arrow").touch()
    checkpoint.clear(tmp_path, after_step=6)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-3", "step-6"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "train.arrow"]
