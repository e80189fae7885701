"""Layers that begin to learn one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, T5Config, T5ForConditionalGeneration

from models.spec import Freeze, JobRequest
from tests.training.material import (
    JobFolder,
    StopAfter,
    fresh_copy,
    of_type,
    run,
    spec,
    weights_of,
)
from training import optim, tasks
from training.layers import depths
from training.unfreezing import Unfreezing

GRADUAL: dict[str, Any] = {
    "tuning": "freeze", "freeze": {"gradual": 0.25}, "layer_lr_decay": 0.7, "l1": 1e-5,
    "total_steps": 8, "eval_every": 100, "checkpoint_every": 1, "warmup_steps": 0,
}  # fmt: skip
ORDER = ["classifier.", "bert.encoder.layer.1.", "bert.encoder.layer.0.", "bert.embeddings."]
"""The first of each group; the tiny model's epoch has 8 steps, so one joins every 2."""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_layers_stay_before_their_time_and_move_after_it(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.checkpoint.retire", lambda folder: None)
    plan = spec(**GRADUAL)
    start = tasks.create(plan, print).load(folder.model, exact=False).state_dict()
    records = run(folder.job(plan))
    assert any("4 groups of layers" in r["message"] for r in of_type(records, "log"))
    for step in range(1, 9):
        checkpoint = folder.path / "checkpoints" / f"step-{step}"
        now = weights(checkpoint)
        moved = [
            any(not torch.equal(now[n], start[n]) for n in now if n.startswith(prefix))
            for prefix in ORDER
        ]
        joined = [2 * place < step for place in range(4)]
        assert moved == joined, step
        # Who has not joined takes no memory of the optimizer's.
        state = torch.load(checkpoint / "training_state.pt", weights_only=True)["optimizer"]
        learning = ["bert.pooler", *(p for p, has in zip(ORDER, joined, strict=True) if has)]
        learnt = sum(name.startswith(tuple(learning)) for name in now)
        assert len(state["state"]) == learnt


@pytest.mark.parametrize("stop", [3, 4])
def test_a_stopped_and_resumed_run_ends_in_the_same_bits(
    folder: JobFolder, tmp_path: Path, stop: int
) -> None:
    plan = spec(**GRADUAL | {"checkpoint_every": 100, "ema_decay": 0.8})
    run(folder.job(plan))
    broken = fresh_copy(folder, tmp_path / "broken")
    run(broken.job(plan), StopAfter(broken, stop))
    run(broken.job(plan, resume_from=broken.newest_checkpoint()))
    assert weights_of(broken.path / "output") == weights_of(folder.path / "output")


def test_rates_are_those_of_the_layers_and_what_is_frozen_for_good_never_joins(
    tiny_model: Path,
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    plan = spec(**GRADUAL)
    frozen = [p for n, p in model.named_parameters() if n.startswith("bert.encoder.layer.0.")]
    for parameter in frozen:
        parameter.requires_grad_(False)
    optimizer = optim.create(model, plan)
    unfreezing = Unfreezing(model, plan, drawn={"bert.embeddings.LayerNorm.bias"})
    assert len(unfreezing.groups) == 3
    unfreezing.apply(0)
    learns = {n for n, p in model.named_parameters() if p.requires_grad}
    starts = ("classifier.", "bert.pooler.", "bert.embeddings.LayerNorm.bias")
    assert learns == {n for n in learns if n.startswith(starts)}
    assert "bert.embeddings.LayerNorm.bias" in learns
    unfreezing.apply(100)
    assert not any(p.requires_grad for p in frozen)
    factors = {group["factor"] for group in optimizer.param_groups}
    assert factors == {1.0, 0.7, 0.7**3}


def test_stacks_join_together_and_a_layers_own_embedding_is_the_layers() -> None:
    """T5's lowest layers hold the embedding of distances."""
    config = T5Config(
        vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=3, num_heads=2, pad_token_id=0,
        decoder_start_token_id=0,
    )  # fmt: skip
    found = depths(T5ForConditionalGeneration(config))
    for part in ("encoder", "decoder"):
        for layer in range(3):
            own = {d for n, d in found.items() if n.startswith(f"{part}.block.{layer}.")}
            assert own == {3 - layer}
    assert found["shared.weight"] == 4


def test_what_a_run_will_do_is_told(tiny_model: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    unfreezing = Unfreezing(model, spec(**GRADUAL), drawn=())
    assert unfreezing.told(7).endswith("all of them from step 7 on.")
    assert unfreezing.told(6).endswith("the lowest 1 never, for the run ends at step 6.")
    assert unfreezing.told(2).endswith("the lowest 3 never, for the run ends at step 2.")


def test_a_head_alone_has_nothing_that_could_join() -> None:
    with pytest.raises(ValidationError, match="Leave one of them out"):
        Freeze(head_only=True, gradual=1.0)
    asked = {"model": "m", "training_file": "f", "tuning": "freeze"}
    assert JobRequest.model_validate(asked | {"freeze": {"gradual": 1.0}}).freeze is not None
    with pytest.raises(ValidationError, match="`gradual`"):
        JobRequest.model_validate(asked)
