"""A model that reads one text and writes another, packed beside padded.

    python -m bench.pairs [--steps N] [--vocabulary N] [--threads N]

A Marian with layers drawn (6 and 6 of 512), strings of 5 to 40 tokens, batch 32, dropout 0.1, fp32.
A step's forward and backward pass, each side in turn on the same rows: the rows packed, the same
rows padded, and padded with all logits of a batch at once, as plain transformers has them. Told are
medians, and tokens that are no padding, without the first step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ROWS, BATCH, SHORTEST, LONGEST, PACK = 1600, 32, 5, 40, 2048


def marian(vocabulary: int) -> Any:
    import torch
    from transformers import AutoModelForSeq2SeqLM, MarianConfig

    from training import dropout

    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=vocabulary, d_model=512, encoder_layers=6, decoder_layers=6,
        encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=2048,
        decoder_ffn_dim=2048, max_position_embeddings=512, activation_function="swish",
        dropout=0.1, pad_token_id=vocabulary - 1, decoder_start_token_id=vocabulary - 1,
    )  # fmt: skip
    model = AutoModelForSeq2SeqLM.from_config(config).train()
    dropout.install(model)
    return model


def measure(steps: int, vocabulary: int) -> None:
    import torch

    from training import unpadding, written_text
    from training.batch_plan import BatchPlan
    from training.sequences import IGNORED
    from training.tasks.base import Batch, Loss

    draw = np.random.default_rng(0)
    read = draw.integers(SHORTEST, LONGEST + 1, ROWS)
    written = np.clip(np.round(read * draw.normal(1.05, 0.2, ROWS)), 2, LONGEST + 10).astype(int)
    plan = BatchPlan(read + written, BATCH, seed=1)

    def tokens(lengths: Any, fill: int) -> tuple[torch.Tensor, torch.Tensor]:
        kept = torch.arange(int(lengths.max()))[None] < torch.from_numpy(lengths)[:, None]
        drawn = torch.from_numpy(draw.integers(3, vocabulary - 1, tuple(kept.shape)))
        return drawn.masked_fill(~kept, fill), kept.long()

    def batch(rows: Any) -> Batch:
        ids, mask = tokens(read[rows], vocabulary - 1)
        targets, _ = tokens(written[rows], IGNORED)
        return Batch({"input_ids": ids, "attention_mask": mask}, targets, 0)

    padded, packed = marian(vocabulary), marian(vocabulary)
    assert unpadding.install(packed)

    def whole(of: Batch) -> Loss:
        return written_text.loss(padded, of, "right", plain_head=False)

    sides: dict[str, tuple[Callable[[Batch], Loss], int | None]] = {
        "packed": (lambda of: written_text.loss(packed, of, "right", plain_head=True), PACK),
        "padded": (lambda of: written_text.loss(padded, of, "right", plain_head=True), None),
        "padded, all logits at once": (whole, None),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for step in range(steps):
        for side, (loss, most) in sides.items():
            parts = [batch(rows) for rows in plan.micro_batches(step, BATCH, most)]
            for model in (padded, packed):
                model.zero_grad()
            started = time.perf_counter()
            for part in parts:
                loss(part).sum.backward()
            seconds[side].append(time.perf_counter() - started)
    real = [int((read + written)[plan.rows(step)].sum()) for step in range(1, steps)]
    speeds = {
        side: statistics.median(n / s for n, s in zip(real, of[1:], strict=True))
        for side, of in seconds.items()
    }
    for side, speed in speeds.items():
        print(f"| {side} | {speed:,.0f} tokens/s | {speeds['packed'] / speed:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--vocabulary", type=int, default=58_101)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()

    import torch

    torch.set_num_threads(asked.threads)
    measure(asked.steps, asked.vocabulary)


if __name__ == "__main__":
    main()
