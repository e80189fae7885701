"""The two kinds of worker process, each started by a command of its own."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import warnings
from dataclasses import replace

from celery.platforms import SecurityWarning
from celery.signals import worker_ready

from core.doorbell import CONTROL_QUEUE, train_queue
from core.settings import Settings
from core.telemetry import Tracing
from models import workers
from models.db import Disconnected
from worker.app import CONTROL_THREADS, control_app, training_app
from worker.context import Context
from worker.scratch import hand_back
from worker.trainer import Record, Standby
from worker.usage import usage
from worker.webhooks import Deliveries

log = logging.getLogger(__name__)

PRESENCE_SECONDS = 10.0


def run_training(settings: Settings) -> None:
    """One slot: claims jobs and supervises their trainers, until SIGTERM."""
    context = replace(Context.open(settings), tracing=Tracing.open(settings, "worker"))
    standby = Standby(context.scratch("standby"))
    try:
        standby.warm()
        try:
            hand_back(context)
        except Disconnected as error:
            log.warning("jobs of dead workers are taken back later: %s", error)
        ready = standby.wait_ready()
        capabilities = _capabilities(ready)
        _Presence(context, capabilities, ready).start()
        app = training_app(context, standby, capabilities)
        queues = [train_queue([]), *(train_queue([capability]) for capability in capabilities)]
        # Whatever was queued while no worker ran: claimed now, not when somebody rings next.
        context.doorbell.train([])
        app.worker_main(_arguments(settings, queues, context.worker_id, "--pool", "solo"))
    finally:
        standby.close()
        context.tracing.close()


def _capabilities(ready: Record) -> list[str]:
    """What a job may require of this worker: that of fewer GPUs than it has, too."""
    if ready["device"] == "cpu":
        return ["cpu"]
    return ["cpu", "cuda", *(f"gpus-{count}" for count in range(2, ready["gpus"] + 1))]


def run_control(settings: Settings) -> None:
    """Validation, reconcilers and webhooks, with the beat inside. Safe to run more than one of."""
    context = replace(Context.open(settings), tracing=Tracing.open(settings, "control"))
    app = control_app(context)
    deliveries = Deliveries(context)

    def ready(**_: object) -> None:
        # Not before: the beat is a fork of this process, which had better have no threads yet. That
        # of traces, where there are any, is begun anew in a fork by its library.
        deliveries.start()
        threading.Thread(target=_end_in_time, args=(context,), daemon=True).start()

    worker_ready.connect(ready, weak=False)
    app.conf.beat_scheduler = "celery.beat:Scheduler"  # In memory: the schedule is code.
    # Threads: the work is waiting for the database and for children that check files.
    pool = ("--pool", "threads", "--concurrency", str(CONTROL_THREADS))
    try:
        app.worker_main(_arguments(settings, [CONTROL_QUEUE], "control", "--beat", *pool))
    finally:
        deliveries.stop()
        context.tracing.close()


def _end_in_time(context: Context) -> None:
    """End this process within its grace, whatever hangs in it. All that it does may be broken off:
    what is held under a lease has been given back by then, and the rest is repeated by others."""
    context.stopping.wait()
    time.sleep(max(0.0, context.leaves_at - time.monotonic()))
    log.warning("something has not ended in time, it is broken off")
    os._exit(0)


def _arguments(settings: Settings, queues: list[str], name: str, *more: str) -> list[str]:
    """Celery's own command line: quiet, since leases and reconcilers do what gossip is for."""
    # Celery warns root of pickled messages; these workers accept JSON alone.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    options = {"--queues": ",".join(queues), "--hostname": f"{name}@%h"}
    options["--loglevel"] = settings.log_level
    words = [word for option in options.items() for word in option]
    return [
        "-q",
        "worker",
        *words,
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        *more,
    ]


class _Presence(threading.Thread):
    """Says that this worker is alive, also while it waits for work or trains for a week."""

    def __init__(self, context: Context, capabilities: list[str], ready: Record) -> None:
        super().__init__(name="presence", daemon=True)
        self._context = context
        self._capabilities = capabilities
        told = ("device", "device_name", "memory_bytes", "versions")
        self._details = {name: ready[name] for name in told}

    def run(self) -> None:
        while True:
            try:
                with self._context.transaction() as session:
                    workers.report(
                        session,
                        self._context.worker_id,
                        socket.gethostname(),
                        self._capabilities,
                        self._details | {"usage": usage(self._details["device"])},
                    )
            except Disconnected as error:
                log.warning("presence not reported: %s", error)
            if self._context.stopping.wait(PRESENCE_SECONDS):
                return
