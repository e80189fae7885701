"""SmolLM2-135M learns to translate interface texts: LoRA on chats, answers before and after.

Chats of one question, `Translate into …: …`, and one answer, from Django's catalogues. Printed are
the loss on the chats held out, BLEU of the answers (written greedily by plain transformers, from
the merged folder), and some of them.

    python -m bench.chat [EPOCHS] [LANGUAGE]          (fetches model and texts with pip)
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import sacrebleu
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench import engine
from bench.catalogues import Pair, catalogues, pairs
from bench.sft import fetch_model

NAMES = {"es": "Spanish", "fr": "French", "de": "German", "pt_BR": "Brazilian Portuguese"}
LONGEST, ANSWER_TOKENS, BATCH, SHOWN = 100, 60, 16, 6


def question(language: str, text: str) -> dict[str, str]:
    return {"role": "user", "content": f"Translate into {NAMES[language]}: {text}"}


def write(path: Path, language: str, rows: list[Pair]) -> Path:
    chats = [
        [question(language, asked), {"role": "assistant", "content": answer}]
        for asked, answer in rows
    ]
    path.write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    return path


@torch.inference_mode()
def answers(folder: Path, language: str, rows: list[Pair]) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    said = []
    for start in range(0, len(rows), BATCH):
        chats = [[question(language, asked)] for asked, _ in rows[start : start + BATCH]]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        ids = model.generate(**inputs, max_new_tokens=ANSWER_TOKENS, do_sample=False)
        written = ids[:, inputs["input_ids"].shape[1] :]
        said += [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
    return said


def main() -> None:
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    language = sys.argv[2] if len(sys.argv) > 2 else "es"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        training, held_out = pairs(catalogues(folder), "en", language, LONGEST)
        fetch_model(folder / "SmolLM2-135M-Instruct")
        began = time.perf_counter()
        trained = engine.run(
            folder / "job", folder / "SmolLM2-135M-Instruct", "text-generation",
            write(folder / "train.jsonl", language, training),
            write(folder / "valid.jsonl", language, held_out),
            tuning="lora", lora={"rank": 16}, seed=0,
            hyperparameters={"n_epochs": epochs, "batch_size": 16, "learning_rate": 1e-3,
                             "lr_scheduler": "cosine", "warmup_ratio": 0.05, "precision": "bf16"},
        )  # fmt: skip
        seconds = time.perf_counter() - began
        for step, values in trained.evaluations():
            print(f"step {step:4}  loss {values['loss']:.3f}", flush=True)
        wanted = [answer for _, answer in held_out]
        said = [
            answers(model, language, held_out)
            for model in (folder / "SmolLM2-135M-Instruct", trained.output)
        ]
        scores = [sacrebleu.corpus_bleu(texts, [wanted]).score for texts in said]
        for row in range(0, len(held_out), max(1, len(held_out) // SHOWN)):
            print(f"{held_out[row][0]!r} (wanted: {wanted[row]!r})")
            for when, texts in zip(("before", "after"), said, strict=True):
                print(f"  {when}: {texts[row]!r}")
    print(
        f"English to {NAMES[language]}: {len(training)} chats, {len(held_out)} held out, {epochs} "
        f"epochs, {seconds:.0f} s: BLEU {scores[0]:.1f} before, {scores[1]:.1f} after"
    )


if __name__ == "__main__":
    main()
