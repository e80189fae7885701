"""A fleet of real processes that tests may kill: database, broker, API, control, workers.

Everything is the service's own command line under the settings of a fast clock (leases of
seconds), so nothing here is a stand-in for anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
import psutil

from core.settings import Settings
from migrations import upgrade
from models import keys
from models.db import Engine, sync_engine, transaction
from server.children import reap, spawn, stop
from server.embedded import Part, free_port, postgres, valkey
from tests.conftest import clean_environment

T = TypeVar("T")

TERMINAL = ("succeeded", "failed", "cancelled")
LEASE_SECONDS = 3.0
HEARTBEAT_SECONDS = 0.5
SWEEP_SECONDS = 0.5


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = 60.0) -> T:
    """What `probe` returns once it returns something true. Fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


@dataclass
class Server:
    """An embedded server that can be stopped, killed, frozen and started again."""

    part: Part
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = spawn(self.part.child, log.fileno())
        wait_for(f"{self.part.child.name} answers", lambda: self.part.is_ready() or None)

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGCONT)
            stop(self.part.child, self.process)
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)


@dataclass
class Process:
    """One of the service's own processes, in a group of its own."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to this one process, not to its children: what a crash or the OOM killer does."""
        self.popen.kill()
        self.popen.wait()

    def trainers(self) -> list[psutil.Process]:
        """This worker's trainer processes, the standby among them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [
                child
                for child in psutil.Process(self.pid).children()
                if "training" in child.cmdline()
            ]
        return []

    def busy_trainer(self) -> psutil.Process | None:
        """The trainer with the job: the oldest, since the next standby is started when it begins.

        Between two attempts it is the standby.
        """
        return min(self.trainers(), key=lambda child: child.create_time(), default=None)


@dataclass
class Fleet:
    folder: Path
    postgres: Server
    valkey: Server
    engine: Engine
    key: str
    project: str
    port: int
    environment: dict[str, str]
    processes: list[Process] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> Settings:
        return Settings(
            data_dir=self.folder / "data",
            database_url=self.environment["LUTHIER_DATABASE_URL"],
            redis_url=self.environment["LUTHIER_REDIS_URL"],
        )

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(api_key=self.key, base_url=f"{self.url}/v1", max_retries=0)

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.url}/v1",
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
            **options,
        )

    def start(self, command: str, **environment: str) -> Process:
        """Start `luthier-server COMMAND`; `worker` gets a data folder of its own."""
        name = f"{command}-{len(self.processes)}"
        log = self.folder / f"{name}.log"
        own = {"LUTHIER_DATA_DIR": str(self.folder / "machines" / name)}
        shared = {"LUTHIER_DATA_DIR": str(self.folder / "data")}
        with log.open("ab") as output:
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "server", command],
                env=self.environment | (own if command == "worker" else shared) | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process = Process(name, popen, log)
        self.processes.append(process)
        return process

    def start_api(self) -> Process:
        process = self.start("api")
        self.wait_api()
        return process

    def wait_api(self) -> None:
        def answers() -> bool | None:
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200 or None
            return None

        wait_for("the API answers", answers)

    def start_worker(self, **environment: str) -> Process:
        """A training worker, returned once it waits for rings."""
        worker = self.start("worker", **environment)
        wait_for(
            "the worker waits for rings", lambda: b" ready." in worker.log.read_bytes() or None
        )
        return worker

    def end(self, process: Process, seconds: float = 60) -> int:
        """SIGTERM, and its exit status."""
        process.popen.terminate()
        return process.popen.wait(seconds)

    def upload(self, rows: int = 64, name: str = "train.csv") -> str:
        return self.client.files.create(file=(name, training_csv(rows)), purpose="fine-tune").id

    def submit(self, file_id: str, *, seed: int = 1, **hyperparameters: Any) -> str:
        """A job on the tiny model; its id."""
        job = self.client.fine_tuning.jobs.create(
            model="tiny",
            training_file=file_id,
            seed=seed,
            hyperparameters={"batch_size": 4} | hyperparameters,  # type: ignore[arg-type]
        )
        return job.id

    def job(self, job_id: str) -> dict[str, Any]:
        with self.http() as http:
            answer = http.get(f"/fine_tuning/jobs/{job_id}")
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

    def step(self, job_id: str) -> int:
        return (self.job(job_id).get("progress") or {}).get("step", 0)

    def wait_status(self, job_id: str, *statuses: str, seconds: float = 120) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["status"] in statuses else None

        return wait_for(f"{job_id} is {' or '.join(statuses)}", reached, seconds)

    def wait_step(self, job_id: str, step: int, seconds: float = 90) -> int:
        return wait_for(
            f"{job_id} at step {step}", lambda: max(0, self.step(job_id) - step + 1), seconds
        )

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """Oldest first."""
        with self.http() as http:
            answer = http.get(f"/fine_tuning/jobs/{job_id}/events", params={"limit": 100})
            answer.raise_for_status()
            return list(reversed(answer.json()["data"]))

    def steps_seen(self, job_id: str) -> list[int]:
        """The steps of the training series, in order."""
        with self.http() as http:
            answer = http.get(
                f"/fine_tuning/jobs/{job_id}/metrics", params={"split": "train", "limit": 10_000}
            )
            answer.raise_for_status()
            return [point["step"] for point in answer.json()["data"]]

    def weights_sha256(self, job_id: str) -> str:
        model = self.job(job_id)["fine_tuned_model"]
        with self.http() as http:
            files = http.get(f"/models/{model}/files").json()["data"]
        return next(f["sha256"] for f in files if f["path"] == "model.safetensors")


def training_csv(rows: int) -> bytes:
    """Two classes that a tiny model can tell apart, the same bytes every time."""
    words = {"pos": ["good", "great", "fine"], "neg": ["bad", "awful", "poor"]}
    lines = ["text,label"]
    for number in range(rows):
        label = ("pos", "neg")[number % 2]
        text = " ".join(words[label][(number * 7 + i) % 3] for i in range(3 + number % 5))
        lines.append(f"{text},{label}")
    return "\n".join(lines).encode()


@contextlib.contextmanager
def running_fleet(folder: Path, tiny_model: Path, **environment: str) -> Iterator[Fleet]:
    """Database and broker running, schema migrated, a key made. Ends every process after."""
    data = folder / "data"
    data.mkdir(parents=True)
    database = Server(postgres(data, lambda message: None), folder / "postgres.log")
    broker = Server(valkey(data), folder / "valkey.log")
    fleet: Fleet | None = None
    try:
        database.start()
        broker.start()
        upgrade(database.part.url)
        engine = sync_engine(database.part.url)
        settings = Settings(data_dir=data)
        with transaction(engine) as session:
            row, key = keys.create(
                session, settings.signing_secret(), project="default", name="faults"
            )
        port = free_port()
        shared = {
            "LUTHIER_DATABASE_URL": database.part.url,
            "LUTHIER_REDIS_URL": broker.part.url,
            "LUTHIER_PORT": str(port),
            "LUTHIER_STORAGE_URL": (folder / "storage").as_uri(),
            "LUTHIER_SECRET": settings.signing_secret().decode(),
            "LUTHIER_BASE_MODELS": json.dumps({"tiny": str(tiny_model)}),
            "LUTHIER_LEASE_SECONDS": str(LEASE_SECONDS),
            "LUTHIER_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
            "LUTHIER_RECONCILE_SECONDS": str(SWEEP_SECONDS),
            "OMP_NUM_THREADS": "1",
        }
        fleet = Fleet(
            folder,
            database,
            broker,
            engine,
            key,
            row.project_id,
            port,
            clean_environment(**(shared | environment)),
        )
        yield fleet
    finally:
        for process in fleet.processes if fleet else []:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            reap(process.popen)
        if fleet:
            fleet.engine.dispose()
        broker.stop()
        database.stop()
