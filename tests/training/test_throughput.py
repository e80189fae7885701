from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, BertConfig, BertModel, LlamaConfig

from tests.training.material import JobFolder, of_type, run, spec
from training import throughput
from training.throughput import Cost, Throughput, Work, peak_flops

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 96,
}  # fmt: skip


def counted(model: Any, tokens: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens)[0].sum().backward()
    return counter.get_total_flops()


def work(targets: int) -> Work:
    """Of five rows of 16 tokens."""
    done = Work()
    done.add(np.full(5, 16), targets)
    return done


def test_the_formula_counts_what_torch_counts() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 64, (5, 16))
    encoder = BertModel(BertConfig(**SIZES, attn_implementation="eager"), add_pooling_layer=False)
    cost = Cost.of(encoder.eval())
    assert cost is not None
    assert cost.of_target == 0
    assert cost.flops(work(0)) == pytest.approx(counted(encoder, tokens), rel=0.03)

    config = LlamaConfig(**SIZES, num_key_value_heads=2, attn_implementation="eager")
    decoder = AutoModelForCausalLM.from_config(config).eval()
    cost = Cost.of(decoder)
    assert cost is not None
    # Without its mask torch does twice what causal attention needs.
    needed = counted(decoder, tokens) - cost.of_pair * 5 * 16**2
    assert cost.flops(work(80)) == pytest.approx(needed, rel=0.03)

    # The first layer's inputs take no gradient once the embeddings take none.
    for parameter in decoder.model.parameters():
        parameter.requires_grad_(False)
    frozen = Cost.of(decoder)
    assert frozen is not None
    assert frozen.of_token == cost.of_token * 4 // 6


def test_a_runs_speed_is_told_at_its_end(folder: JobFolder, monkeypatch: Any) -> None:
    assert Throughput(seconds=1.0).told(None, torch.device("cpu"), None) == ("", {})
    monkeypatch.setattr(throughput, "LEAST_SECONDS", 0.0)
    records = run(folder.job(spec(total_steps=4, eval_every=4)))
    (told,) = (r for r in of_type(records, "log") if "tokens a second" in r["message"])
    assert 0 < told["data"]["utilisation"] < 1.5
    assert told["data"]["flops_per_second"] < told["data"]["peak_flops_per_second"] * 1.5
    assert Path(folder.path / "output").exists()


def test_the_peak_of_a_cpu_is_measured() -> None:
    assert peak_flops(torch.device("cpu"), None) > 1e8  # type: ignore[operator]
