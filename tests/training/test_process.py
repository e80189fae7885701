"""The trainer as a process: its pipes, its end, and how it says that it failed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.training.driver import Trainer
from tests.training.material import JobFolder, of_type, run, spec
from training import checkpoint
from training.failures import DiskFull, JobUnreadable, classify
from training.job import read_job

LONG = spec(total_steps=100_000, n_epochs=12_500, eval_every=100_000, checkpoint_every=50_000)


def test_it_heeds_its_supervisor_alone_and_ends_with_it(folder: JobFolder) -> None:
    with Trainer() as trainer:
        ready = trainer.wait_for("ready")
        assert ready["pid"] == trainer.process.pid
        assert ready["device"] == "cpu"
        assert set(ready["versions"]) >= {"torch", "transformers"}
        trainer.start(folder.write(LONG))
        trainer.wait_for("progress", step=2)
        # A Ctrl-C or a SIGTERM for the whole service leaves it to the supervisor what to do.
        trainer.process.send_signal(signal.SIGINT)
        trainer.process.send_signal(signal.SIGTERM)
        seen = trainer.wait_for("progress")["step"]
        trainer.wait_for("progress", step=seen + 5)
        trainer.hang_up()
        assert trainer.process.wait(timeout=2) == 3


def test_a_stop_now_ends_it_after_the_step_and_saves_nothing(folder: JobFolder) -> None:
    with Trainer() as trainer:
        trainer.start(folder.write(LONG))
        asked = trainer.wait_for("progress", step=3)["time"]
        trainer.stop("now")
        last = trainer.finish()
        assert last["type"] == "stopped"
        assert last["step"] == of_type(trainer.records, "progress")[-1]["step"]
        assert last["time"] - asked < 2
        assert trainer.process.returncode == 0
        assert not (folder.path / "checkpoints").exists()


def test_it_dies_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """By PR_SET_PDEATHSIG alone: its control pipe stays open."""
    supervisor = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-m', 'training'], pass_fds=[int(sys.argv[1])])\n"
        "time.sleep(600)\n"
    )
    read_end, write_end = os.pipe()
    control_read, control_write = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", supervisor, str(write_end)],
        stdin=control_read,
        pass_fds=[write_end],
        env=os.environ | {"LUTHIER_RECORD_FD": str(write_end)},
        cwd=Path(__file__).parents[2],
    )
    os.close(write_end)
    try:
        with os.fdopen(read_end) as records:
            assert '"ready"' in records.readline()
            (child,) = psutil.Process(parent.pid).children()
            parent.kill()
            parent.wait()
            assert records.readline() == ""
        child.wait(timeout=2)
    finally:
        parent.kill()
        os.close(control_write)
        os.close(control_read)


@pytest.mark.parametrize("limit", [40_000, 150_000], ids=["in the weights", "in the state"])
def test_a_full_disk_has_a_code_of_its_own_and_spares_what_was_saved(
    folder: JobFolder, limit: int
) -> None:
    run(folder.job(spec(total_steps=2, eval_every=2)))
    saved = folder.newest_checkpoint()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(Exception) as caught:
            run(folder.job(spec(total_steps=4, eval_every=4), resume_from=saved))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    failure = classify(caught.value)
    assert isinstance(failure, DiskFull)
    assert "File too large" in str(failure)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    checkpoint.verify(saved)


def test_a_failure_is_a_record_and_the_traceback_is_in_the_log(folder: JobFolder) -> None:
    (folder.path / "train.arrow").write_bytes((folder.path / "valid.arrow").read_bytes())
    with Trainer() as trainer:
        trainer.start(folder.write(spec(labels=["negative", "neutral"])))
        failed = trainer.finish()
        assert failed["type"] == "failed"
        assert (failed["code"], failed["param"]) == ("bad_data", "training_file")
        assert failed["details"]
        assert all(1 <= detail["row"] <= 24 for detail in failed["details"])
        assert trainer.process.returncode == 1
        assert "Traceback" in trainer.log()


def test_a_job_that_breaks_the_contract_is_an_internal_error(folder: JobFolder) -> None:
    path = folder.write(spec())
    for text in ("", "[]", "{}", path.joinpath("job.json").read_text().replace("cpu", "abacus")):
        (path / "job.json").write_text(text)
        with pytest.raises(JobUnreadable, match=r"job\.json"):
            read_job(path)
    with pytest.raises(JobUnreadable, match="no metric 'bleu'"):
        run(folder.job(spec(metric="bleu")))
    (path / "job.json").unlink()
    with pytest.raises(JobUnreadable) as caught:
        read_job(path)
    assert classify(caught.value).error_code == "internal"


def test_the_hub_is_out_of_reach_and_told_nothing() -> None:
    """Trap 20. What the libraries read at their import, in a trainer that was handed a job."""
    child = """
import json, sys, training.job
def told(folder):
    from huggingface_hub import constants
    flags = [constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY]
    print(json.dumps(flags), flush=True)
    raise SystemExit(0)
training.job.read_job = told
from training.__main__ import main
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", child],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"LUTHIER_RECORD_FD": "2", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(b'{"cmd": "start", "folder": "/"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == [True, True]
