from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_cosine_with_hard_restarts_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
    get_wsd_schedule,
)

from tests.training.material import spec
from training import optim

TOTAL, RATE = 40, 3e-4
THEIRS: dict[str, Any] = {
    "linear": lambda o, w: get_linear_schedule_with_warmup(o, w, TOTAL),
    "cosine": lambda o, w: get_cosine_schedule_with_warmup(o, w, TOTAL),
    "constant": get_constant_schedule_with_warmup,
    "cosine_with_restarts": lambda o, w: get_cosine_with_hard_restarts_schedule_with_warmup(
        o, w, TOTAL, num_cycles=3
    ),
    "polynomial": lambda o, w: get_polynomial_decay_schedule_with_warmup(
        o, w, TOTAL, lr_end=0.1 * RATE, power=3.0
    ),
    "wsd": lambda o, w: get_wsd_schedule(
        o, w, num_decay_steps=8, num_training_steps=TOTAL, decay_type="1-sqrt"
    ),
}
SETTINGS: dict[str, Any] = {
    "cosine_with_restarts": {"lr_cycles": 3},
    "polynomial": {"lr_power": 3.0, "lr_end_ratio": 0.1},
    "wsd": {"lr_decay_ratio": 0.2},
}


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("warmup", [0, 1, 7, TOTAL])
def test_schedules_are_those_of_transformers(name: str, warmup: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = THEIRS[name](optimizer, warmup)
    if name in ("wsd", "polynomial") and warmup == TOTAL:
        pytest.skip("transformers' own fails where nothing is left after the warm-up")
    ours = spec(
        learning_rate=RATE, lr_scheduler=name, warmup_steps=warmup, total_steps=TOTAL,
        **SETTINGS.get(name, {}),
    )  # fmt: skip
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


def test_an_exponential_fall_is_by_the_same_share_each_step() -> None:
    falling = spec(lr_scheduler="exponential", warmup_steps=0, total_steps=TOTAL, lr_end_ratio=0.25)
    rates = [optim.learning_rate(falling, step) for step in range(TOTAL + 1)]
    assert rates[-1] == pytest.approx(0.25 * rates[0])
    assert all(b / a == pytest.approx(0.25 ** (1 / TOTAL)) for a, b in pairwise(rates))
    unsaid = spec(lr_scheduler="exponential", warmup_steps=0, total_steps=TOTAL, lr_end_ratio=0.0)
    assert optim.learning_rate(unsaid, TOTAL) == pytest.approx(0.01 * unsaid.learning_rate)
