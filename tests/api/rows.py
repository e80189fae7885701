"""Tables, finished models and running jobs for the API's tests, as users and workers write them."""

from __future__ import annotations

from models import checkpoints, leases, registry
from models.checkpoints import Checkpoint
from models.db import transaction
from models.registry import FineTunedModel
from tests.api.conftest import Live
from tests.rows import claim, make_job, read_job

FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": bytes(range(256)) * 40,
    "onnx/empty.txt": b"",
}
RESOLVED = {
    "task": "text-classification",
    "total_steps": 40,
    "n_epochs": 3,
    "batch_size": 8,
    "learning_rate": 1e-4,
    "metric": "accuracy",
    "greater_is_better": True,
}


def make_model(live: Live, suffix: str = "demo", step: int | None = None) -> FineTunedModel:
    """A fine-tuned model of the default project, its files in storage; or a checkpoint's."""
    job_id = make_job(live.engine, live.project_id, suffix=suffix, task="text-classification")
    name = registry.name("all-MiniLM-L6-v2", "default", suffix, job_id, step)
    prefix = f"jobs/{job_id}/attempts/1/output"
    stored = []
    for path, content in sorted(FILES.items()):
        written = live.store.write_bytes(f"{prefix}/{path}", content)
        stored.append({"path": path, "bytes": written.bytes, "sha256": written.sha256})
    with transaction(live.engine) as session:
        model = FineTunedModel(
            id=name,
            project_id=live.project_id,
            job_id=job_id,
            base_model="all-MiniLM-L6-v2",
            task="text-classification",
            step=step,
            prefix=prefix,
            files=stored,
            bytes=sum(map(len, FILES.values())),
            metrics={"valid_loss": 0.5},
        )
        registry.add(session, model)
        if step is not None:
            checkpoints.add(
                session,
                Checkpoint(
                    job_id=job_id,
                    fence=1,
                    step=step,
                    model_id=name,
                    prefix=prefix,
                    files=stored,
                    bytes=1,
                    metrics={"train_loss": 0.7, "valid_loss": 0.5, "valid_accuracy": 0.9},
                    reason="interval",
                ),
            )
    return model


def make_running_job(live: Live, step: int = 10) -> str:
    """A job in a worker's hands, `step` of 40 steps done."""
    job_id = make_job(live.engine, live.project_id, resolved=RESOLVED, priority=50)
    job = claim(live.engine)
    assert job.id == job_id
    with transaction(live.engine) as session:
        held = leases.hold(session, job_id, job.fence)
        held.phase = "training"
        held.progress = {"step": step, "total_steps": 40, "epoch": 0.75}
        held.latest_metrics = {"train": {"step": step, "loss": 0.4}}
        held.log_tail = "first line\nlast line\n"
    return read_job(live.engine, job_id).id


def csv(name: str, rows: int = 8) -> bytes:
    """Of a content that no other test has."""
    lines = [f"{name} film {n},{('good', 'bad')[n % 2]}" for n in range(rows)]
    return ("text,label\n" + "\n".join(lines) + "\n").encode()
