"""The whole service at work, in about five minutes: `make demo`.

It starts `luthier-server up` on a free port with a fresh data folder, fetches the movie reviews,
fine-tunes all-MiniLM-L6-v2 on 9,605 of them over HTTP, downloads the weights, and lets plain
transformers, in a process of its own, classify the 1,000 held-out reviews and three sentences.
It stops the service that it started, however it ends. It fails if the held-out accuracy is below
0.80.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from luthier import Job, Luthier

from core.parent import die_with_parent
from examples import reviews
from server.data_folder import AlreadyRunning, hold

DATA = Path("demo-data")
OUTPUT = Path("demo-output")
MODEL = "all-MiniLM-L6-v2"
SETTINGS = {"n_epochs": 1, "batch_size": 32, "learning_rate": 5e-5}
SENTENCES = (
    "A warm, funny film that I will gladly watch again.",
    "Two hours of my life that nobody will give back to me.",
    "The plot is thin, but the actors make up for it.",
)
GOAL = 0.80
START_SECONDS = 120
STOP_SECONDS = 150
LINE_EVERY_STEPS = 10
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HERE = Path(__file__).parent
BIN = Path(sys.executable).parent


def main() -> None:
    began = time.monotonic()
    for number in SIGNALS:
        signal.signal(number, end)

    make_fresh(DATA)
    title("Fetching the reviews")
    train, held_out = reviews.fetch(DATA / "reviews")
    print(f"{train} and {held_out}")

    title("Starting the service")
    with service(DATA) as client:
        title(f"Fine-tuning {MODEL}")
        job = fine_tune(client, train, held_out)
        if job.status != "succeeded" or job.fine_tuned_model is None:
            sys.exit(f"The job {job.status}: {job.error.message if job.error else 'no reason'}")

        title("Downloading the weights")
        client.models.download(job.fine_tuned_model, OUTPUT)
        for file in client.models.files(job.fine_tuned_model):
            print(f"{file.path:24} {file.bytes:>12,} bytes, SHA-256 verified")

    title("Using them with plain transformers")
    before = accuracy(base_model_folder(), held_out)
    after = accuracy(OUTPUT, held_out)
    print(transformers(OUTPUT, *typed_sentences()))

    title("Result")
    print(f"accuracy on 1,000 held-out reviews, before: {before:.3f} (untrained head)")
    print(f"accuracy on 1,000 held-out reviews, after:  {after:.3f}")
    print(f"training took {job.finished_at - job.created_at if job.finished_at else 0} s")
    print(f"all of it took {time.monotonic() - began:.0f} s")
    print(f"the weights are in {OUTPUT.resolve()}")
    if after < GOAL:
        sys.exit(f"The accuracy is below {GOAL}.")


def make_fresh(data_dir: Path) -> None:
    """Remove what an earlier demo left. Raises AlreadyRunning while a service runs on it."""
    if (data_dir / "lock").exists():
        with hold(data_dir, "", print):
            shutil.rmtree(data_dir)
    data_dir.mkdir(exist_ok=True)


@contextmanager
def service(data_dir: Path) -> Iterator[Luthier]:
    """A running service; it has ended when the block is left, however that happens."""
    log_path = data_dir / "up.log"
    with log_path.open("wb") as log:
        up = subprocess.Popen(
            [BIN / "luthier-server", "up", "--data-dir", data_dir, "--port", "0"],
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches this program, which then ends the service
            preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # even killed
        )
    try:
        url = wait_for_url(up, data_dir, log_path)
        print(f"{url}, log in {log_path}")
        # Who watches a job waits for a service that is away; this one nobody would start again.
        signal.signal(signal.SIGCHLD, lambda *_: end_with(up, log_path))
        end_with(up, log_path)
        key = (data_dir / "api_key").read_text().strip()
        with Luthier(base_url=url, api_key=key) as client:
            yield client
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        up.terminate()
        try:
            up.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()
        print("\nThe service has ended.")


def wait_for_url(up: subprocess.Popen[bytes], data_dir: Path, log_path: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while not (data_dir / "url").exists():
        if up.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"The service did not start. Its log:\n{log_path.read_text()[-4000:]}")
        time.sleep(0.1)
    return (data_dir / "url").read_text().strip()


def end_with(up: subprocess.Popen[bytes], log_path: Path) -> None:
    """End if the service has ended; other children come and go."""
    if up.poll() is not None:
        sys.exit(f"The service ended by itself. Its log:\n{log_path.read_text()[-4000:]}")


def fine_tune(client: Luthier, train: Path, held_out: Path) -> Job:
    """Upload, submit and watch."""
    files = []
    for path in (train, held_out):
        with path.open("rb") as stream:
            files.append(client.files.create(file=(path.name, stream), purpose="fine-tune"))
        print(f"uploaded {path.name}: {files[-1].id}")
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=files[0].id,
        validation_file=files[1].id,
        task="text-classification",
        suffix="reviews",
        seed=1,
        hyperparameters=SETTINGS,
    )
    said = 0
    for update in client.fine_tuning.jobs.watch(job.id):
        job = update.job
        for event in update.events:
            if event.type != "metrics":  # those are the points below
                print(event.message, flush=True)
        for point in update.points:
            if point.split == "valid" or point.step >= said + LINE_EVERY_STEPS:
                said = max(said, point.step)
                print(progress(job, point.step, point.split, point.values), flush=True)
    return job


def progress(job: Job, step: int, split: str, values: dict[str, float | None]) -> str:
    total = job.progress.total_steps if job.progress else None
    shown = [f"step {step:>3} of {total or '?'}", split]
    for name, digits in (("loss", 3), ("accuracy", 3), ("samples_per_second", 0)):
        if (value := values.get(name)) is not None:
            shown.append(f"{name.replace('_', ' ')} {value:.{digits}f}")
    return "  " + " · ".join(shown)


def base_model_folder() -> Path:
    """Where the service keeps the base model, as its command lists it."""
    listing = subprocess.run(
        [BIN / "luthier-server", "models"], capture_output=True, text=True, check=True
    ).stdout
    folders = dict(line.split("\t") for line in listing.splitlines())
    return Path(folders[MODEL])


def accuracy(folder: Path, data: Path) -> float:
    return float(transformers(folder, "--accuracy", str(data)))


def transformers(folder: Path, *arguments: str) -> str:
    """What `load_weights.py` prints, run by itself, with no network and nothing of ours."""
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(
        [sys.executable, HERE / "load_weights.py", folder, *arguments],
        env={**os.environ, **quiet, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()


def typed_sentences() -> list[str]:
    """Three sentences from the keyboard; without one, or for an empty line, ours."""
    if not sys.stdin.isatty():
        return list(SENTENCES)
    print("Type three sentences about a film (an empty line takes the one shown).")
    return [input(f"[{default}] ").strip() or default for default in SENTENCES]


def end(number: int, frame: FrameType | None) -> None:
    """Leave through every `finally`; nothing may cut the stopping of the service short."""
    for repeated in SIGNALS:
        signal.signal(repeated, signal.SIG_IGN)
    print(f"\nEnded by {signal.Signals(number).name}.", file=sys.stderr)
    sys.exit(128 + number)


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (AlreadyRunning, reviews.Unavailable) as error:
        sys.exit(str(error))
