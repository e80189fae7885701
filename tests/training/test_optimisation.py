"""Settings of the optimisation: each does what it says, and none costs the exact resume."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    ConvNextConfig,
    LlamaConfig,
)

from core.errors import InvalidRequest
from models.optimisation import Optimisation
from tests.training.material import (
    JobFolder,
    StopAfter,
    fresh_copy,
    job_folder,
    of_type,
    run,
    spec,
    texts,
    tiny_bert,
    weights_of,
    write_arrow,
)
from training import devices, dropout, loss_scale, optim
from training.accumulate import accumulate
from training.emphasis import Emphasis
from training.moving_average import MovingAverage
from training.state import RunState
from training.tasks.text_classification import TextClassification

SHORT: dict[str, Any] = {"total_steps": 8, "eval_every": 4, "checkpoint_every": 100}
MIXES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "l1": 1e-4, "layer_lr_decay": 0.8, "learning_rate": 0.05},
    "rmsprop": {"optimizer": "rmsprop", "dropout": 0.3, "lr_scheduler": "wsd"},
    "adafactor": {"optimizer": "adafactor", "ema_decay": 0.8, "label_smoothing": 0.1},
    "lora-ema": {"tuning": "lora", "lora": {"rank": 2}, "ema_decay": 0.9, "focal_gamma": 2.0,
                 "activation_checkpointing": True, "class_weights": "balanced"},
}  # fmt: skip


@pytest.mark.parametrize("name", MIXES)
def test_a_stopped_and_resumed_run_ends_in_the_same_bits(
    folder: JobFolder, tmp_path: Path, name: str
) -> None:
    plan = spec(**SHORT, **MIXES[name])
    whole = run(folder.job(plan))
    broken = fresh_copy(folder, tmp_path / "broken")
    run(broken.job(plan), StopAfter(broken, 3))
    resumed = run(broken.job(plan, resume_from=broken.newest_checkpoint()))
    assert resumed[-1]["metrics"] == whole[-1]["metrics"]
    assert weights_of(broken.path / "output") == weights_of(folder.path / "output")
    plain = fresh_copy(folder, tmp_path / "plain")
    run(plain.job(spec(**SHORT)))
    assert weights_of(plain.path / "output") != weights_of(folder.path / "output")


def test_the_average_is_judged_and_handed_over_and_another_is_trained() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = MovingAverage(model, 0.75)
    expected = model.weight.detach().clone()
    for _ in range(3):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        average.update()
        expected = 0.75 * expected + 0.25 * model.weight.detach()
    trained = model.weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight.detach(), trained)


def test_layers_learn_the_slower_the_lower_they_lie() -> None:
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=1,
        intermediate_size=8, max_position_embeddings=8,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    factors = optim.layer_factors(model, 0.5)
    starts = {
        "classifier.": 1.0, "bert.pooler.": 1.0, "bert.encoder.layer.1.": 0.5,
        "bert.encoder.layer.0.": 0.25, "bert.embeddings.": 0.125,
    }  # fmt: skip
    assert all(factors[n] == f for s, f in starts.items() for n in factors if n.startswith(s))
    assert set(factors.values()) == set(starts.values())
    optimizer = optim.create(model, spec(layer_lr_decay=0.5))
    optim.set_learning_rate(optimizer, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["lr"] == 0.1 * factors[names[id(parameter)]]


def test_l1_draws_matrices_towards_zero() -> None:
    layer = nn.Linear(3, 2)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optim.add_l1(layer, 0.5)
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    assert torch.equal(layer.weight.grad, 0.5 * layer.weight.detach().sign())
    assert not layer.bias.grad.any()


def test_dropout_of_zero_leaves_nothing_to_chance(tiny_model: Path, tmp_path: Path) -> None:
    task = TextClassification(spec(), print)
    model = task.load(tiny_model, exact=False)
    examples = task.read(write_arrow(tmp_path / "a", texts(8)), "training_file", lambda: None)
    batch = task.collate(examples, np.arange(8))
    exact = task.loss(model.eval(), batch).sum.item()
    model.train()
    assert task.loss(model, batch).sum.item() != exact
    dropout.override(model, 0.0)
    assert task.loss(model, batch).sum.item() == pytest.approx(exact, rel=1e-6)


def test_a_model_without_dropout_has_none_to_set() -> None:
    sizes: dict[str, Any] = {"hidden_sizes": [4, 4, 4, 4], "depths": [1, 1, 1, 1]}
    model = AutoModelForImageClassification.from_config(ConvNextConfig(**sizes))
    with pytest.raises(InvalidRequest, match="no dropout") as caught:
        dropout.install(model, 0.1)
    assert caught.value.param == "dropout"
    # Llama's is a number of its attention, which its config may hold as the integer 0.
    llama = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                        num_attention_heads=1, vocab_size=20, attention_dropout=0)  # fmt: skip
    model = AutoModelForCausalLM.from_config(llama)
    dropout.install(model, 0.1)
    assert model.model.layers[0].self_attn.attention_dropout == 0.1


@pytest.mark.parametrize("asked", [{"precision": "fp16"}, {"precision": "tf32"}])
def test_precisions_of_a_gpu_are_refused_on_a_cpu(folder: JobFolder, asked: Any) -> None:
    with pytest.raises(InvalidRequest, match="needs a GPU") as caught:
        run(folder.job(spec(**asked)))
    assert caught.value.param == "precision"


def test_the_optimizer_of_a_gpu_is_refused_on_a_cpu(folder: JobFolder) -> None:
    with pytest.raises(InvalidRequest, match="needs a GPU") as caught:
        run(folder.job(spec(optimizer="adamw_8bit")))
    assert caught.value.param == "optimizer"


def test_a_scaled_loss_gives_the_same_gradient(tiny_model: Path, tmp_path: Path) -> None:
    task = TextClassification(spec(), print)
    model = task.load(tiny_model, exact=False).eval()
    examples = task.read(write_arrow(tmp_path / "a", texts(8)), "training_file", lambda: None)
    found = []
    for scale in (1.0, 2.0**12):
        model.zero_grad()
        totals = accumulate(
            task, model, examples, [np.arange(5), np.arange(5, 8)], step=1, epoch=0, scale=scale
        )
        norm = optim.normalise_gradients(model, totals.count * scale, max_norm=1e9)
        found.append([norm, totals.means, *(p.grad for p in model.parameters())])
    assert found[0][:2] == found[1][:2]
    # A power of two changes exponents alone.
    for plain, scaled in zip(found[0][2:], found[1][2:], strict=True):
        assert torch.equal(plain, scaled)


def test_a_scale_that_is_too_large_falls_and_the_step_is_done_all_the_same(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fresh_copy(folder, tmp_path / "plain")
    run(plain.job(spec(**SHORT)))
    # The scale of fp16 around a computation in fp32, since a CPU has no fp16.
    monkeypatch.setattr(devices, "half_dtype", lambda *_: torch.float16)
    monkeypatch.setattr(devices, "autocast", lambda *_: nullcontext())
    monkeypatch.setattr(loss_scale, "INITIAL", 2.0**130)
    run(folder.job(spec(**SHORT)))
    assert weights_of(folder.path / "output") == weights_of(plain.path / "output")


def test_a_scale_rises_once_it_was_borne_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "PATIENCE", 3)
    state = RunState.fresh(spec())
    loss_scale.after_step(state)
    assert (state.loss_scale, loss_scale.lower(state)) == (1.0, False)
    state.loss_scale = 8.0
    for _ in range(3):
        loss_scale.after_step(state)
    assert state.loss_scale == 16.0
    assert loss_scale.lower(state)
    assert (state.loss_scale, state.steps_at_scale) == (8.0, 0)


def test_layers_that_run_twice_learn_the_same(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base", dropout=0.1)
    weights = []
    for twice in (False, True):
        folder = job_folder(tmp_path / f"job-{twice}", base)
        run(folder.job(spec(**SHORT, activation_checkpointing=twice)))
        weights.append(weights_of(folder.path / "output"))
    assert weights[0] == weights[1]


def test_emphasis_is_of_training_alone_and_as_torch_has_it(folder: JobFolder) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(40, 2), torch.tensor([0] * 30 + [1] * 10)
    balanced = Emphasis.of(spec(class_weights="balanced"), targets.numpy())
    assert balanced is not None
    assert balanced.weights is not None
    assert balanced.weights.tolist() == pytest.approx([40 / 60, 40 / 20])
    theirs = functional.cross_entropy(logits, targets, weight=balanced.weights, reduction="sum")
    assert float(balanced.losses(logits, targets).sum()) == pytest.approx(float(theirs), rel=1e-5)
    smooth = Emphasis.of(spec(label_smoothing=0.2), targets.numpy())
    assert smooth is not None
    theirs = functional.cross_entropy(logits, targets, label_smoothing=0.2, reduction="sum")
    assert float(smooth.losses(logits, targets).sum()) == pytest.approx(float(theirs), rel=1e-5)
    focal = Emphasis.of(spec(focal_gamma=2.0), targets.numpy())
    assert focal is not None
    right = logits.softmax(-1).gather(1, targets[:, None])[:, 0]
    expected = ((1 - right) ** 2 * -right.log()).sum()
    assert float(focal.losses(logits, targets).sum()) == pytest.approx(float(expected), rel=1e-4)
    assert Emphasis.of(spec(), targets.numpy()) is None

    weighed = spec(total_steps=1, eval_every=1, class_weights={"negative": 1e-3, "positive": 1e-3})
    records = of_type(run(folder.job(weighed)), "metrics")
    losses = {r["split"]: r["values"]["loss"] for r in records}
    assert losses["train"] < 0.01 < losses["valid"]


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="`lr_power` goes with `lr_scheduler` 'polynomial'"):
        Optimisation(lr_power=3.0)
    with pytest.raises(ValidationError, match="not both"):
        Optimisation(focal_gamma=1.0, label_smoothing=0.1)


def test_a_sure_guess_has_a_gradient_whatever_the_gamma() -> None:
    """The power of a gamma below 1 has no slope at 0, where the chance of being wrong rounds to."""
    logits = torch.tensor([[40.0, 0.0], [0.1, 0.0]], requires_grad=True)
    focal = Emphasis.of(spec(focal_gamma=0.5), np.array([0, 0]))
    assert focal is not None
    focal.losses(logits, torch.tensor([0, 0])).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert float(logits.grad[1].abs().max()) > 0.1
