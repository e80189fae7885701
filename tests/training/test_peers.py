"""The ranks of a run as processes: they start, fail and end as one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.driver import Trainer
from tests.training.material import (
    JobFolder,
    fresh_copy,
    job_folder,
    spec,
    texts,
    tiny_bert,
    weights_of,
)
from tests.training.rank_processes import job_of_ranks, run_ranks

PLAN = spec(total_steps=24, checkpoint_every=3)


def peer_of(trainer: Trainer) -> psutil.Process:
    (peer,) = psutil.Process(trainer.process.pid).children()
    return peer


def test_a_killed_rank_ends_all_and_the_job_goes_on_from_its_checkpoint(
    folder: JobFolder, tmp_path: Path
) -> None:
    job = job_of_ranks(folder, PLAN, 2)
    with Trainer() as trainer:
        trainer.start(job.folder)
        trainer.wait_for("checkpoint", step=6)
        peer = peer_of(trainer)
        # Whoever kills the trainer's group kills every rank.
        assert os.getpgid(peer.pid) == trainer.process.pid
        peer.send_signal(signal.SIGKILL)
        last = trainer.finish()
        assert last["type"] not in ("done", "failed", "stopped"), last
        assert trainer.process.returncode == 1
        assert "Rank 1 ended with status -9" in trainer.log()

    saved = folder.newest_checkpoint()
    run_ranks(job_of_ranks(folder, PLAN, 2, resume_from=str(saved)))
    whole = fresh_copy(folder, tmp_path / "whole")
    run_ranks(job_of_ranks(whole, PLAN, 2))
    assert weights_of(folder.path / "output") == weights_of(whole.path / "output")


@pytest.mark.slow
def test_a_killed_first_rank_leaves_none(folder: JobFolder) -> None:
    with Trainer() as trainer:
        trainer.start(job_of_ranks(folder, PLAN, 2).folder)
        trainer.wait_for("progress", step=1)
        peer = peer_of(trainer)
        # Alone, unlike a supervisor, which kills the group.
        trainer.process.send_signal(signal.SIGKILL)
        peer.wait(timeout=5)


def test_another_ranks_failure_is_told_as_the_runs(tmp_path: Path) -> None:
    """Of a step's rows the longest is the second rank's: it alone meets a weight that is no number,
    while the first waits for it."""
    base = tiny_bert(tmp_path / "base")
    rows = [*texts(63), (64, " ".join(["film"] * 50), None, "positive")]
    weights = load_file(base / "model.safetensors")
    weights["embeddings.position_embeddings.weight"][51] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    folder = job_folder(tmp_path / "job", base, train=rows)
    with Trainer() as trainer:
        failed = trainer.start(job_of_ranks(folder, PLAN, 2).folder).finish()
        assert (failed["type"], failed["code"]) == ("failed", "non_finite_loss"), trainer.log()
        assert {"step": failed["details"][0]["step"], "row": 64} in failed["details"]
        assert trainer.process.returncode == 1
