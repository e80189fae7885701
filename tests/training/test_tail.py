"""Behind the last attention only the tokens that somebody asks for are worked on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedModel,
    RobertaConfig,
)

from tests.training.test_packing import LENGTHS, SIZES, made, padded, rows
from training import cross_entropy, embedding, layout, tail, unpadding
from training.throughput import Cost, Work

DISTIL = DistilBertConfig(
    vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64
)
CONFIGS: dict[str, Any] = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES | {"pad_token_id": 1}),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "distilbert": DISTIL,
}
BATCH = padded(rows())
MASK = BATCH["attention_mask"].bool()


def both(auto: Any, config: Any) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A model that is packed, and the same one as it was made."""
    torch.manual_seed(0)
    plain = auto.from_config(config).eval()
    packed = copy.deepcopy(plain)
    assert unpadding.install(packed)
    return packed, plain


def worked_on(model: PreTrainedModel) -> list[int]:
    """How many tokens come to each feed-forward layer, from now on."""
    size = int(getattr(model.config, "intermediate_size", 64))
    seen: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == size:
            module.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[-2]))
    return seen


def assert_same_gradients(packed: nn.Module, plain: nn.Module) -> None:
    for (name, mine), theirs in zip(packed.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            assert mine.grad is not None, name
            torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_class_is_told_by_the_first_token_alone(name: str) -> None:
    packed, plain = both(AutoModelForSequenceClassification, CONFIGS[name])
    seen = worked_on(packed)
    logits = [model(**BATCH).logits for model in (packed, plain)]
    torch.testing.assert_close(*logits, atol=1e-6, rtol=0)
    for each in logits:
        each.square().sum().backward()
    assert seen == [sum(LENGTHS), len(LENGTHS)]
    assert_same_gradients(packed, plain)


@pytest.mark.parametrize("again", [False, True], ids=["once", "layers-run-again"])
@pytest.mark.parametrize("name", CONFIGS)
def test_masks_are_filled_from_their_own_states_alone(name: str, again: bool) -> None:
    packed, plain = both(AutoModelForMaskedLM, CONFIGS[name])
    seen = worked_on(packed)
    if again:
        packed.activation_checkpointing_enable()
        packed.train()
        for module in packed.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            for attribute in ("attention_dropout", "dropout_prob"):
                if hasattr(module, attribute):
                    setattr(module, attribute, 0.0)
    known = MASK & (torch.rand(MASK.shape, generator=torch.Generator().manual_seed(1)) < 0.2)
    targets = BATCH["input_ids"][known]
    losses = [
        cross_entropy.of_logits(model, BATCH, known, targets, "accuracy").sum
        for model in (packed, plain)
    ]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    assert seen[:2] == [sum(LENGTHS), int(known.sum())]
    assert_same_gradients(packed, plain)
    # Who asks for nothing gets all.
    states = [model.eval().base_model(**BATCH)[0][MASK] for model in (packed, plain)]
    torch.testing.assert_close(*states, atol=1e-6, rtol=0)


def test_a_batch_in_which_nothing_is_asked_for_passes() -> None:
    packed, _ = both(AutoModelForMaskedLM, CONFIGS["bert"])
    none = torch.zeros_like(MASK)
    loss = cross_entropy.of_logits(packed, BATCH, none, BATCH["input_ids"][none], "accuracy")
    loss.sum.backward()
    assert loss.sum.item() == 0


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vectors_ask_for_the_tokens_that_they_are_made_of(pooling: embedding.Pooling) -> None:
    packed, plain = both(AutoModel, CONFIGS["bert"])
    seen = worked_on(packed)
    wanted = embedding.read(BATCH["attention_mask"], pooling)
    vectors = []
    for model in (packed, plain):
        with tail.asking(model, wanted):
            states = model(**BATCH).last_hidden_state
        vectors.append(embedding.pool(states, BATCH["attention_mask"], pooling))
    torch.testing.assert_close(*vectors, atol=1e-6, rtol=0)
    assert seen == [sum(LENGTHS), len(LENGTHS) if pooling == "cls" else sum(LENGTHS)]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt2-classes"])
def test_models_that_add_to_a_layers_own_input_last_do_all_of_it(name: str) -> None:
    model = made(name)
    assert unpadding.install(model)
    assert tail.of(model) is None


def test_heads_that_read_every_token_are_given_all() -> None:
    model = made("roberta")
    assert unpadding.install(model)
    stack = tail.of(model)
    assert stack is not None
    assert not stack.first_alone


def test_in_16_bits_what_is_asked_for_is_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    for multiple in (1, 64):
        monkeypatch.setattr(layout, "ROUND", multiple)
        packed, _ = both(AutoModelForSequenceClassification, CONFIGS["bert"])
        seen = worked_on(packed)
        with torch.autocast("cpu", torch.bfloat16):
            packed(**BATCH).logits.float().square().sum().backward()
        assert seen[-1] == (64 if multiple == 64 else len(LENGTHS))
        gradients.append([p.grad for p in packed.parameters() if p.grad is not None])
    for plain, beside in zip(*gradients, strict=True):
        scale = float(plain.abs().max())
        torch.testing.assert_close(plain, beside, atol=0.02 * scale, rtol=0)


def test_what_is_left_out_does_not_count_as_work() -> None:
    packed, _ = both(AutoModelForSequenceClassification, CONFIGS["bert"])
    ids = torch.randint(3, 50, (5, 16))
    with FlopCounterMode(display=False) as counter:
        packed(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().backward()
    cost, done = Cost.of(packed), Work()
    assert cost is not None
    done.add(torch.full((5,), 16).numpy(), 5)
    assert cost.flops(done) == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_a_class_that_is_told_by_all_tokens_is_told_by_all() -> None:
    class Mean(nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return states.mean(dim=1)

    torch.manual_seed(0)
    model: Any = AutoModelForSequenceClassification.from_config(CONFIGS["bert"]).eval()
    model.bert.pooler = Mean()
    assert unpadding.install(model)
    stack = tail.of(model)
    assert stack is not None
    assert not stack.first_alone
