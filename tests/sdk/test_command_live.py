"""The `luthier` command against a live service, as a user or a script meets it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from luthier import Job, Luthier

from tests.conftest import Service, clean_environment
from tests.sdk.proxy import proxy_to

MODEL = "all-MiniLM-L6-v2"
ENDLESS = ("--set", "n_epochs=1000", "--set", "batch_size=2")
STEPS = 6

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data files, and where commands run."""
    folder = tmp_path_factory.mktemp("command")
    rows = [f"a {word} film number {i},{label}" for i in range(12) for word, label in WORDS]
    (folder / "train.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (folder / "valid.csv").write_text("text,label\n" + "\n".join(rows[:8]) + "\n")
    (folder / "one_class.csv").write_text("text,label\ngood,positive\nfine,positive\n")
    return folder


WORDS = (("good", "positive"), ("bad", "negative"))


@pytest.fixture(scope="module")
def environment(service: Service) -> dict[str, str]:
    return clean_environment(LUTHIER_DATA_DIR=str(service.data_dir))


@pytest.fixture(scope="module")
def luthier(folder: Path, environment: dict[str, str]) -> Run:
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "luthier", *arguments],
            cwd=folder,
            env={**environment, **more},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Luthier]:
    with Luthier(base_url=service.base_url, api_key=service.key) as client:
        yield client


@pytest.fixture(scope="module")
def ran(luthier: Run) -> list[dict[str, Any]]:
    """What `luthier run --json` printed, a whole job."""
    done = luthier(
        "run", "train.csv", "--validation", "valid.csv", "--model", MODEL, "--suffix", "run",
        "--set", f"max_steps={STEPS}", "--set", "batch_size=4", "--seed", "1", "-o", "weights",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def finished(ran: list[dict[str, Any]]) -> Job:
    return Job.construct(**ran[-1]["job"])


@pytest.fixture
def running(client: Luthier, luthier: Run, ran: list[dict[str, Any]]) -> Iterator[str]:
    """A job that runs until it is stopped."""
    done = luthier(
        "jobs", "create", "--training-file", ran[0]["file"]["id"], "--model", MODEL, *ENDLESS
    )
    job_id = done.stdout.strip()
    wait_for(client, job_id, "running")
    yield job_id
    if client.fine_tuning.jobs.retrieve(job_id).status != "cancelled":
        client.fine_tuning.jobs.cancel(job_id, mode="now")
    wait_for(client, job_id, "cancelled")


def wait_for(client: Luthier, job_id: str, status: str, step: int = 0) -> Job:
    deadline = time.monotonic() + 120
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status == status and (not step or (job.progress and job.progress.step >= step)):
            return job
        assert time.monotonic() < deadline, f"{job_id} is {job.status}, not {status}"
        time.sleep(0.2)


def test_run_uploads_submits_watches_and_downloads(
    ran: list[dict[str, Any]], folder: Path, client: Luthier
) -> None:
    kinds = [line["type"] for line in ran]
    assert kinds[:2] == ["file", "file"]
    assert set(kinds[2:-1]) == {"job", "event", "metrics"}
    assert kinds[-1] == "result"

    steps = [line["metrics"]["step"] for line in ran if line["type"] == "metrics"
             if line["metrics"]["split"] == "train"]  # fmt: skip
    assert steps == list(range(1, STEPS + 1))
    messages = [line["event"]["message"] for line in ran if line["type"] == "event"]
    assert messages[0].startswith("Created fine-tuning job")
    assert len(messages) == len(set(messages))

    job = ran[-1]["job"]
    assert job["status"] == "succeeded"
    assert (
        job["resolved"]["max_steps" if "max_steps" in job["resolved"] else "total_steps"] == STEPS
    )
    listed = {file.path: file.bytes for file in client.models.files(job["fine_tuned_model"])}
    here = {
        str(path.relative_to(folder / "weights")): path.stat().st_size
        for path in (folder / "weights").rglob("*")
    }
    assert here == listed
    assert "model.safetensors" in here


def test_watching_without_a_terminal_prints_plain_lines(luthier: Run, finished: Job) -> None:
    done = luthier("jobs", "watch", finished.id)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert "The job has successfully completed" in done.stdout
    assert f"step {STEPS}: loss" in done.stdout
    assert "⠒⠒ train loss   ⠒⠒ valid loss" in done.stdout
    assert "Succeeded in 0:" in done.stdout or "Succeeded in" in done.stdout
    assert finished.fine_tuned_model is not None
    assert finished.fine_tuned_model in done.stdout


def test_watching_on_a_terminal_redraws_a_bar(
    running: str, client: Luthier, folder: Path, environment: dict[str, str]
) -> None:
    master, slave = pty.openpty()
    watching = subprocess.Popen(
        [sys.executable, "-m", "luthier", "jobs", "watch", running],
        cwd=folder,
        env={**environment, "TERM": "xterm-256color", "COLUMNS": "120"},
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    step = wait_for(client, running, "running", step=3).progress
    time.sleep(2)
    client.fine_tuning.jobs.cancel(running, mode="now")
    shown = read_all(master)
    assert watching.wait(60) == 3
    assert step is not None
    # Drawn again in place: "erase the line", then the steps, loss, speed and time left.
    assert shown.count("\x1b[2K") > 3
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"training.*\d+/\d+ .*loss \d\.\d{4} · [\d.]+ samples/s · [\d:]+ left", text)
    assert "Created fine-tuning job" in text
    assert "Cancelled." in text
    assert "⠒⠒ train loss" in text


def read_all(master: int) -> str:
    chunks = []
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # Linux's end of a pseudo-terminal
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(master)
    return b"".join(chunks).decode()


def test_ctrl_c_ends_the_watching_and_not_the_job(
    running: str, client: Luthier, folder: Path, environment: dict[str, str]
) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "luthier", "jobs", "watch", running],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it runs in the background with SIGINT ignored, and that is inherited.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert watching.stdout is not None
    while "Created" not in watching.stdout.readline():
        assert watching.poll() is None
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert "The job goes on" in said
    assert f"luthier jobs cancel {running}" in said
    assert "Traceback" not in said
    assert client.fine_tuning.jobs.retrieve(running).status == "running"


def test_pause_resume_and_cancel(running: str, luthier: Run, client: Luthier) -> None:
    wait_for(client, running, "running", step=1)
    assert luthier("jobs", "pause", running).returncode == 0
    wait_for(client, running, "paused")
    done = luthier("jobs", "resume", running, "--json")
    assert json.loads(done.stdout)["id"] == running
    wait_for(client, running, "running")
    assert luthier("jobs", "cancel", running, "--mode", "now").stdout.startswith(running)
    wait_for(client, running, "cancelled")
    assert luthier("jobs", "watch", running).returncode == 3


def test_a_cut_connection_is_survived_without_gap_or_repeat(
    service: Service,
    running: str,
    client: Luthier,
    folder: Path,
    environment: dict[str, str],
) -> None:
    with proxy_to(service.url) as proxy:
        watching = subprocess.Popen(
            [sys.executable, "-m", "luthier", "jobs", "watch", running, "--json"],
            cwd=folder,
            env={**environment, "LUTHIER_BASE_URL": proxy.url, "LUTHIER_API_KEY": service.key},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watching.stdout is not None
        lines = [json.loads(watching.stdout.readline())]
        while lines[-1]["type"] != "metrics":
            lines.append(json.loads(watching.stdout.readline()))
        proxy.cut()
        while lines[-1]["type"] != "interruption":
            lines.append(json.loads(watching.stdout.readline()))
        time.sleep(1)
        proxy.restore()
        cut_at = len(lines)
        while not any(line["type"] == "metrics" for line in lines[cut_at:]):
            lines.append(json.loads(watching.stdout.readline()))
        client.fine_tuning.jobs.cancel(running, mode="now")
        lines += [json.loads(line) for line in watching.stdout]
        assert watching.wait(60) == 3
    train = [line["metrics"] for line in lines if line["type"] == "metrics"]
    steps = [point["step"] for point in train if point["split"] == "train"]
    stored = [point.step for point in client.fine_tuning.jobs.metrics(running)]
    assert steps == stored == list(range(1, len(stored) + 1))
    ids = [line["event"]["id"] for line in lines if line["type"] == "event"]
    assert len(ids) == len(set(ids))
    assert lines[-1]["job"]["status"] == "cancelled"


def test_a_failed_job_exits_with_1_and_says_why(luthier: Run, folder: Path) -> None:
    done = luthier("run", "one_class.csv", "--model", MODEL, "--task", "text-classification")
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("Failed: ")
    assert "code: " in last
    assert "class" in last


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "missing.csv", "--model", MODEL],
        ["run", "train.csv"],
        ["run", "train.csv", "--model", MODEL, "--set", "n_epochs"],
        ["jobs", "watch"],
        ["nonsense"],
    ],
)
def test_wrong_usage_exits_with_2(luthier: Run, arguments: list[str]) -> None:
    done = luthier(*arguments)
    assert done.returncode == 2
    assert "Error: " in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "train.csv", "--model", "no-such-model"], MODEL),
        (["run", "train.csv", "--model", MODEL, "--set", "epochs=1"], "n_epochs"),
        (["jobs", "watch", "ftjob-none"], "ftjob-none"),
        (["models", "files", "ft:none"], "ft:none"),
        (["files", "show", "file-none"], "file-none"),
    ],
)
def test_an_error_of_the_api_is_one_paragraph(
    luthier: Run, ran: list[dict[str, Any]], arguments: list[str], told: str
) -> None:
    done = luthier(*arguments, "--json")
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if json.loads(line)["type"] != "file"] == []
    assert done.stderr.count("\n") == 1
    assert told in done.stderr
    assert re.search(r"code: \w+, status: 4\d\d, request: req-", done.stderr)


def test_a_wrong_key_and_an_absent_service(luthier: Run) -> None:
    done = luthier("jobs", "list", LUTHIER_API_KEY="wrong")
    assert done.returncode == 1
    assert "invalid_api_key" in done.stderr
    done = luthier("jobs", "list", "--base-url", "http://127.0.0.1:9/v1", LUTHIER_API_KEY="any")
    assert done.returncode == 1
    assert "Is the service running there?" in done.stderr
    done = luthier("jobs", "list", LUTHIER_DATA_DIR="nowhere")
    assert done.returncode == 1
    assert "LUTHIER_API_KEY" in done.stderr


def test_files(luthier: Run, folder: Path) -> None:
    file_id = luthier("files", "upload", "valid.csv").stdout.strip()
    assert file_id.startswith("file-")
    assert json.loads(luthier("files", "show", file_id, "--json").stdout)["filename"] == "valid.csv"
    rows = [line.split("\t") for line in luthier("files", "list").stdout.splitlines()]
    assert [file_id, "valid.csv"] in [row[:2] for row in rows]
    assert luthier("files", "download", file_id).returncode == 2, "would overwrite valid.csv"
    assert luthier("files", "download", file_id, "-o", "again.csv").returncode == 0
    assert (folder / "again.csv").read_bytes() == (folder / "valid.csv").read_bytes()
    assert luthier("files", "delete", file_id).returncode == 0
    assert luthier("files", "show", file_id).returncode == 1


def test_models(luthier: Run, finished: Job, folder: Path) -> None:
    name = finished.fine_tuned_model
    assert name is not None
    ids = [line.split("\t")[0] for line in luthier("models", "list").stdout.splitlines()]
    assert {MODEL, name} <= set(ids)
    assert "model.safetensors" in luthier("models", "files", name).stdout
    done = luthier("models", "download", name, "--json")
    into = folder / json.loads(done.stdout)["folder"]
    assert (into / "model.safetensors").read_bytes() == (
        folder / "weights" / "model.safetensors"
    ).read_bytes()


def test_jobs_and_tasks(luthier: Run, finished: Job) -> None:
    listing = json.loads(luthier("jobs", "list", "--json").stdout)
    assert finished.id in [job["id"] for job in listing["data"]]
    assert f"{finished.id}\tsucceeded\t100 %" in luthier("jobs", "list").stdout
    assert "status: succeeded" in luthier("jobs", "show", finished.id).stdout
    tasks = json.loads(luthier("tasks", "--json").stdout)["data"]
    assert "text-classification" in [task["id"] for task in tasks if task["trainable"]]


def test_a_reader_that_leaves_early_is_no_error(
    folder: Path, environment: dict[str, str], finished: Job
) -> None:
    done = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f"{sys.executable} -m luthier jobs watch {finished.id} --json | head -n 1",
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert json.loads(done.stdout)["type"] == "event"
    assert done.stderr == ""
