"""The whole way of a job with OpenAI's own package and no other.

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1
    export OPENAI_API_KEY=$(cat luthier-data/api_key)
    python examples/openai_client.py train.csv [heldout.csv]

`task` is not in OpenAI's API: what Luthier adds goes through `extra_body`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from urllib.parse import quote

from openai import OpenAI
from openai.types import FileObject


def main(training: Path, validation: Path | None = None) -> None:
    client = OpenAI()

    files = [upload(client, path) for path in (training, validation) if path is not None]
    print("uploaded", *(file.id for file in files))

    job = client.fine_tuning.jobs.create(
        model="all-MiniLM-L6-v2",
        training_file=files[0].id,
        validation_file=files[1].id if validation else None,
        suffix="example",
        metadata={"made-by": "examples/openai_client.py"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
        extra_body={"task": "text-classification"},
    )
    print("submitted", job.id)

    seen: set[str] = set()
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(1)
        job = client.fine_tuning.jobs.retrieve(job.id)
        events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))
        for event in reversed(events):
            if event.id not in seen:
                print(event.level, event.message)
                seen.add(event.id)

    if job.status != "succeeded" or job.fine_tuned_model is None:
        sys.exit(f"{job.status}: {job.error.message if job.error else 'no reason given'}")

    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
        print("checkpoint at step", checkpoint.step_number, checkpoint.metrics.to_dict())

    model = client.models.retrieve(job.fine_tuned_model)
    folder = Path("weights")
    download(client, model.id, folder)
    print(f"{model.id} is in {folder}")


def upload(client: OpenAI, path: Path) -> FileObject:
    with path.open("rb") as stream:
        file = client.files.create(file=(path.name, stream), purpose="fine-tune")
    return client.files.wait_for_processing(file.id, poll_interval=0.5)


def download(client: OpenAI, model: str, folder: Path) -> None:
    """Weights are not in OpenAI's API; its client can ask for any path."""
    base = f"/models/{quote(model, safe='')}/files"
    listing = client.get(base, cast_to=dict[str, list[dict[str, str]]])
    for file in listing["data"]:
        target = folder / file["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(client.get(f"{base}/{quote(file['path'])}", cast_to=bytes))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*(Path(argument) for argument in sys.argv[1:]))
