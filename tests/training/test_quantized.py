"""QLoRA: the base in 4 bits, adapters beside it, and plain weights at the end.

`make test-qlora` runs this with bitsandbytes at hand. The environment of the other tests is without
it: PEFT imports it wherever it is installed, and the compiler of torch with it, at each start.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config

from core.errors import InvalidRequest
from models.spec import Lora
from tests.training.cases import CASES
from tests.training.material import (
    StopAfter,
    fresh_copy,
    job_folder,
    run,
    spec,
    tiny_bert,
    weights_of,
)
from training import tasks, tuning
from training.quantized import quantize

pytest.importorskip("bitsandbytes", reason="make test-qlora")

BY_NAME = {case.name: case for case in CASES}
CHOSEN = {"rank": 4, "quantization": "nf4"}


@pytest.mark.parametrize("name", ["chats", "many-labels"])
def test_what_is_handed_over_is_what_was_evaluated(tmp_path: Path, name: str) -> None:
    case = BY_NAME[name]
    folder = case.folder(tmp_path / "job")
    chosen = case.spec(tuning="lora", lora=CHOSEN, total_steps=6, learning_rate=0.02)
    records = run(folder.job(chosen))
    losses = [r["values"]["loss"] for r in records if r.get("split") == "valid"]
    assert losses[-1] < losses[0]
    output = folder.path / "output"
    task = tasks.create(chosen, print)
    merged = task.load(output, exact=True).eval()
    examples = task.read(folder.path / "valid.arrow", "validation_file", lambda: None)
    batch = task.collate(examples, np.arange(6))
    packed = tuning.load(tasks.create(chosen, print), folder.model, output).eval()
    assert isinstance(packed, PeftModel)
    in_bytes = [p for p in packed.parameters() if p.dtype == torch.uint8]
    assert in_bytes
    with torch.no_grad():
        ours, theirs = merged(**batch.inputs)[0], packed(**batch.inputs)[0]
    assert float((ours - theirs).abs().max()) < 1e-4
    # Four bits are not 32: the base was indeed rounded, and the result stands on the rounded one.
    base = load_file(folder.model / "model.safetensors")
    stored = load_file(output / "model.safetensors").items()
    after = {key.removeprefix("bert."): tensor for key, tensor in stored}
    kept = [key for key in base if key in after and torch.equal(base[key], after[key])]
    rounded = [key for key in after if key.endswith("q_proj.weight") or "query.weight" in key]
    assert kept, "embeddings and norms stay as they were"
    assert rounded
    assert not set(rounded) & set(kept)


def test_a_stopped_and_resumed_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    folder = job_folder(tmp_path / "whole", tiny_bert(tmp_path / "base"))
    plan = spec(total_steps=6, tuning="lora", lora=CHOSEN, ema_decay=0.9)
    run(folder.job(plan))
    broken = fresh_copy(folder, tmp_path / "broken")
    run(broken.job(plan), StopAfter(broken, 3))
    run(broken.job(plan, resume_from=broken.newest_checkpoint()))
    assert weights_of(broken.path / "output") == weights_of(folder.path / "output")


def test_layers_that_are_no_linear_ones_are_refused() -> None:
    model = AutoModelForCausalLM.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(InvalidRequest, match="cannot be quantised"):
        quantize(model, ["transformer.h.0.attn.c_attn"], None)


def test_dora_needs_whole_weights() -> None:
    with pytest.raises(ValueError, match="do not go together"):
        Lora(quantization="nf4", dora=True)
