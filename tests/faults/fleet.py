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
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis
from sqlalchemy import select

from core.settings import Settings
from core.storage import ObjectStore
from migrations import upgrade
from models import keys
from models.db import Engine, sync_engine, transaction
from models.jobs import Job
from models.state import TERMINAL
from models.validations import PENDING, Validation
from server.children import reap
from server.embedded import free_port, postgres, valkey
from tests.conftest import clean_environment
from tests.faults.processes import Process, Server, wait_for

LEASE_SECONDS = 3.0
HEARTBEAT_SECONDS = 0.5
SWEEP_SECONDS = 0.5
CLEAN_SECONDS = 5.0
JOB_MEMBERS = {"model", "metadata", "suffix", "from_checkpoint", "priority", "validation_file"}


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
    unbroken: dict[str, str] = field(default_factory=dict)
    """Weights' SHA-256 of runs that nothing disturbed, by what was asked for."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> Settings:
        return Settings(
            data_dir=self.folder / "data",
            database_url=self.environment["LUTHIER_DATABASE_URL"],
            redis_url=self.environment["LUTHIER_REDIS_URL"],
            storage_url=self.environment["LUTHIER_STORAGE_URL"],
            s3_endpoint=self.environment.get("LUTHIER_S3_ENDPOINT"),
            s3_access_key_id=self.environment.get("LUTHIER_S3_ACCESS_KEY_ID"),
            s3_secret_access_key=self.environment.get("LUTHIER_S3_SECRET_ACCESS_KEY"),  # type: ignore[arg-type]
        )

    @property
    def store(self) -> ObjectStore:
        return ObjectStore.from_settings(self.settings)

    @cached_property
    def http(self) -> httpx.Client:
        """Each request on a connection of its own, as the API may have been killed meanwhile."""
        return httpx.Client(
            base_url=f"{self.url}/v1",
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
            verify=False,  # noqa: S501 - plain HTTP, and loading certificates takes its time
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def get(self, path: str, **params: Any) -> Any:
        """What the API answers, asked again while it or its database is away."""

        def answered() -> httpx.Response | None:
            try:
                answer = self.http.get(path, params=params)
            except httpx.TransportError:
                return None
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        answer = wait_for(f"an answer to GET {path}", answered)
        answer.raise_for_status()
        return answer.json()

    def start(self, command: str, *, machine: Path | None = None, **environment: str) -> Process:
        """Start `luthier-server COMMAND`; `worker` gets a data folder of its own, or that of an
        earlier one.

        All that comes from it has its working directory below the fleet's folder, by which it is
        known (tests/faults/invariants.py).
        """
        name = f"{command}-{len(self.processes)}"
        log = self.folder / f"{name}.log"
        own = machine or self.folder / "machines" / name
        data_dir = own if command == "worker" else self.folder / "data"
        with log.open("ab") as output:
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "server", command],
                env=self.environment | {"LUTHIER_DATA_DIR": str(data_dir)} | environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process = Process(name, popen, log, data_dir, not environment and machine is None)
        self.processes.append(process)
        return process

    def alive(self, command: str) -> list[Process]:
        return [p for p in self.processes if p.name.startswith(command) and p.alive]

    def running(self) -> list[psutil.Process]:
        """What was started here and runs, the two servers among it."""
        ours = [p.popen for p in self.processes if p.alive]
        servers = [s.process for s in (self.postgres, self.valkey) if s.process is not None]
        return [psutil.Process(popen.pid) for popen in (*ours, *servers)]

    def start_api(self) -> Process:
        process = self.start("api")
        self.wait_api()
        return process

    def wait_api(self, url: str | None = None) -> None:
        def answers() -> bool | None:
            with contextlib.suppress(httpx.HTTPError):
                return self.http.get(f"{url or self.url}/readyz").is_success or None
            return None

        wait_for("the API answers", answers)

    def flush_broker(self) -> None:
        with redis.Redis.from_url(self.valkey.part.url) as broker:
            broker.flushall()

    @contextlib.contextmanager
    def slow_writes(
        self, table: str, event: str, *, seconds: float, deferred: bool, when: str = "true"
    ) -> Iterator[None]:
        """Let rows take their time: in the statement that writes them, or `deferred` in the commit.

        `when` is a condition on NEW. What something is killed in can so be chosen, not hit upon.
        """
        name = f"slow_{uuid.uuid4().hex}"
        timing = "DEFERRABLE INITIALLY DEFERRED" if deferred else "NOT DEFERRABLE"
        with self.engine.begin() as connection:
            for statement in (
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$",
                f"CREATE CONSTRAINT TRIGGER {name} AFTER {event} ON {table} {timing} "
                f"FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {name}()",
            ):
                connection.exec_driver_sql(statement)
        try:
            yield
        finally:
            with self.engine.begin() as connection:
                connection.exec_driver_sql(f"DROP FUNCTION {name} CASCADE")

    def sleeping_backends(self) -> int:
        """How many transactions stand in such a write."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        with self.engine.begin() as connection:
            return int(connection.exec_driver_sql(query).scalar_one())

    def end_sleeping_backends(self) -> None:
        """Cut the connections of transactions that stand in such a write: they are rolled back."""
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        )
        with self.engine.begin() as connection:
            connection.exec_driver_sql(query)

    def staged(self) -> list[Path]:
        """What lies half written in the store."""
        return list((self.folder / "storage").rglob("*#[0-9]*"))

    def start_worker(self, *, machine: Path | None = None, **environment: str) -> Process:
        """A training worker, returned once it waits for rings."""
        worker = self.start("worker", machine=machine, **environment)
        wait_for(
            "the worker waits for rings", lambda: b" ready." in worker.log.read_bytes() or None
        )
        return worker

    def worker(self) -> Process:
        """A training worker that waits for rings: one that an earlier test left, or a new one.

        Others that are left over are ended.
        """
        plain = [worker for worker in self.alive("worker") if worker.is_plain]
        for worker in self.alive("worker"):
            if worker not in plain[:1]:
                self.end(worker)
        return plain[0] if plain else self.start_worker()

    def mend(self) -> None:
        """Bring back what a test froze, stopped or killed, but for workers."""
        for server in (self.postgres, self.valkey):
            server.mend()
        for process in self.processes:
            if process.alive:
                process.signal(signal.SIGCONT)
        if not self.alive("api"):
            self.start_api()
        if not self.alive("control"):
            self.start("control")

    def finish_everything(self, seconds: float = 120) -> None:
        """Cancel what is not over, and wait until all of it is, checks of files too."""

        def all_over() -> bool | None:
            with transaction(self.engine) as session:
                unfinished = session.scalars(select(Job.id).where(Job.status.not_in(TERMINAL)))
                waiting = list(unfinished)
                pending = select(Validation.id).where(Validation.status.in_(PENDING))
                checked = session.scalar(pending.limit(1)) is None
            for job_id in waiting:
                self.http.post(f"/fine_tuning/jobs/{job_id}/cancel", params={"mode": "now"})
            return (not waiting and checked) or None

        wait_for("every job has ended", all_over, seconds)

    def end(self, process: Process, seconds: float = 60) -> int:
        """SIGTERM, and its exit status."""
        process.popen.terminate()
        return process.popen.wait(seconds)

    def upload(self, rows: int = 64, name: str = "train.csv") -> str:
        """The id of a file with so many rows."""
        form = {"purpose": "fine-tune"}
        answer = self.http.post("/files", data=form, files={"file": (name, training_csv(rows))})
        answer.raise_for_status()
        return str(answer.json()["id"])

    def request(self, file_id: str, *, seed: int = 1, **hyperparameters: Any) -> dict[str, Any]:
        """The body that submits a job on the tiny model. Members of the job itself, such as
        `metadata`, may stand among the hyperparameters."""
        members = {name: hyperparameters.pop(name) for name in JOB_MEMBERS & hyperparameters.keys()}
        return {
            "model": "tiny",
            "training_file": file_id,
            "seed": seed,
            "hyperparameters": {"batch_size": 4} | hyperparameters,
            **members,
        }

    def submit(self, file_id: str, *, seed: int = 1, **hyperparameters: Any) -> str:
        """The id of a job with this request."""
        answer = self.http.post(
            "/fine_tuning/jobs", json=self.request(file_id, seed=seed, **hyperparameters)
        )
        answer.raise_for_status()
        return str(answer.json()["id"])

    def ask(self, job_id: str, what: str, **params: str) -> httpx.Response:
        """Cancel, pause or resume."""
        return self.http.post(f"/fine_tuning/jobs/{job_id}/{what}", params=params)

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/fine_tuning/jobs/{job_id}")
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
        found = self.get(f"/fine_tuning/jobs/{job_id}/events", limit=100)["data"]
        return list(reversed(found))

    def steps_seen(self, job_id: str) -> list[int]:
        """The steps of the training series, in order."""
        path = f"/fine_tuning/jobs/{job_id}/metrics"
        return [point["step"] for point in self.get(path, split="train", limit=10_000)["data"]]

    def unbroken_sha256(self, *, seed: int = 1, **hyperparameters: Any) -> str:
        """What an undisturbed run of this job leads to. It is run once."""
        asked = repr((seed, sorted(hyperparameters.items())))
        if asked not in self.unbroken:
            self.worker()
            job_id = self.submit(self.upload(), seed=seed, **hyperparameters)
            assert self.wait_status(job_id, *TERMINAL)["status"] == "succeeded"
            self.unbroken[asked] = self.weights_sha256(job_id)
        return self.unbroken[asked]

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """Oldest first."""
        tried: list[dict[str, Any]] = self.job(job_id)["attempts"]
        return tried

    def ended_attempts(self, job_id: str) -> list[dict[str, Any]]:
        return [attempt for attempt in self.attempts(job_id) if attempt["ended_at"]]

    def newest_checkpoint(self, job_id: str) -> int:
        """Its step; 0 before the first."""
        found = self.get(f"/fine_tuning/jobs/{job_id}/checkpoints", limit=1)["data"]
        return found[0]["step_number"] if found else 0

    def weights_sha256(self, job_id: str) -> str:
        files = self.get(f"/models/{self.job(job_id)['fine_tuned_model']}/files")["data"]
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
            "LUTHIER_CLEAN_SECONDS": str(CLEAN_SECONDS),
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
