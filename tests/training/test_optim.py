from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from tests.training.material import spec
from training import optim

TOTAL, RATE = 40, 3e-4
THEIRS: dict[str, Any] = {
    "linear": lambda o, w: get_linear_schedule_with_warmup(o, w, TOTAL),
    "cosine": lambda o, w: get_cosine_schedule_with_warmup(o, w, TOTAL),
    "constant": get_constant_schedule_with_warmup,
}


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("warmup", [0, 1, 7, TOTAL])
def test_schedules_are_those_of_transformers(name: str, warmup: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = THEIRS[name](optimizer, warmup)
    ours = spec(learning_rate=RATE, lr_scheduler=name, warmup_steps=warmup, total_steps=TOTAL)
    for step in range(TOTAL):
        assert optim.learning_rate(ours, step) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-18
        )
        optimizer.step()
        schedule.step()


def test_decay_spares_biases_and_norms_and_frozen_parameters_take_no_state() -> None:
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, max_position_embeddings=8,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad = False
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {
        group["weight_decay"]: {names[id(p)] for p in group["params"]}
        for group in optim.create(model, spec(weight_decay=0.1)).param_groups
    }
    assert groups[0.0] | groups[0.1] == {
        name for name in names.values() if not name.startswith("bert.embeddings.")
    }
    assert groups[0.0] == {
        name for name in groups[0.0] | groups[0.1] if name.endswith("bias") or "LayerNorm" in name
    }


def test_the_mean_is_taken_and_clipped_in_one_pass() -> None:
    layer = nn.Linear(3, 2)
    summed = [torch.full_like(p, 6.0) for p in layer.parameters()]
    for parameter, gradient in zip(layer.parameters(), summed, strict=True):
        parameter.grad = gradient.clone()
    norm = optim.normalise_gradients(layer, count=3, max_norm=1.0)
    assert norm == pytest.approx(2.0 * 8**0.5)
    for parameter, gradient in zip(layer.parameters(), summed, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient / 3 / norm)

    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 0.3)
    optim.normalise_gradients(layer, count=3, max_norm=1.0)
    assert all(torch.allclose(p.grad, torch.tensor(0.1)) for p in layer.parameters())  # type: ignore[arg-type]
