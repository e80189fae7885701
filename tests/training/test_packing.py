"""Without padding between the layers a row gives what it gives alone (trap 5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    DebertaV2Config,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    PreTrainedModel,
    RobertaConfig,
)

from core.errors import InvalidRequest
from tests.training.cases import CASES
from tests.training.material import JobFolder, job_folder, of_type, run, spec, texts, tiny_bert
from training import attention, dropout, layout, tasks, tuning, unpadding
from training.batch_plan import best_fit
from training.layout import Segments
from training.tasks.text_classification import TextClassification

SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
ENDS = {"bos_token_id": 1, "eos_token_id": 2}
GPT2 = GPT2Config(
    vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0, **ENDS
)
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: AutoModelForCausalLM.from_config(
        LlamaConfig(**SIZES, **ENDS, num_key_value_heads=2)
    ),
    "gpt2": lambda: AutoModelForCausalLM.from_config(GPT2),
    "bert": lambda: AutoModelForMaskedLM.from_config(BertConfig(**SIZES)),
    "bert-pooled": lambda: AutoModelForSequenceClassification.from_config(BertConfig(**SIZES)),
    "gpt2-classes": lambda: AutoModelForSequenceClassification.from_config(GPT2),
    "roberta": lambda: AutoModelForTokenClassification.from_config(RobertaConfig(**SIZES)),
    "modernbert": lambda: AutoModelForMaskedLM.from_config(
        ModernBertConfig(**SIZES, **ENDS, cls_token_id=1, sep_token_id=2)
    ),
}
LENGTHS = (3, 17, 5, 5, 1, 17, 9)


def rows(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 50, (length,), generator=generator) for length in LENGTHS]


def padded(tokens: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    mask = torch.arange(ids.shape[1])[None] < torch.tensor([len(row) for row in tokens])[:, None]
    return {"input_ids": ids, "attention_mask": mask.long()}


def made(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return MODELS[name]().eval()


@pytest.mark.parametrize("name", MODELS)
def test_a_packed_row_gives_the_logits_and_gradients_it_gives_alone(name: str) -> None:
    packed, alone = made(name), made(name)
    assert unpadding.install(packed)
    options: dict[str, Any] = {} if "bert" in name else {"use_cache": False}
    batch = padded(rows())
    logits = packed(**batch, **options).logits
    total = torch.zeros(())
    for place, row in enumerate(rows()):
        single = alone(input_ids=row[None], **options).logits[0]
        mine = logits[place] if logits.ndim == 2 else logits[place, : len(row)]
        torch.testing.assert_close(mine, single, atol=1e-6, rtol=0)
        total = total + mine.square().sum()
        single.square().sum().backward()
    total.backward()
    for (key, mine), theirs in zip(packed.named_parameters(), alone.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(
                mine.grad, theirs.grad, atol=1e-5, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}"
            )


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_layers_that_run_again_in_the_backward_pass_find_their_layout(name: str) -> None:
    gradients = []
    for again in (False, True):
        model = made(name).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        assert unpadding.install(model)
        if again:
            model.activation_checkpointing_enable()
        for module in model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
        model(**padded(rows())).logits.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for whole, piecewise in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, piecewise)


def test_a_row_longer_than_a_models_window_keeps_its_mask() -> None:
    torch.manual_seed(0)
    config = MistralConfig(**SIZES, **ENDS, num_key_value_heads=2, sliding_window=8)
    packed = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    torch.manual_seed(0)
    alone = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    assert unpadding.install(packed)
    with torch.no_grad():
        logits = packed(**padded(rows()), use_cache=False).logits
        for place, row in enumerate(rows()):
            single = alone(input_ids=row[None], use_cache=False).logits[0]
            torch.testing.assert_close(logits[place, : len(row)], single, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "config", [DebertaV2Config(**SIZES), Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=8)],
    ids=["deberta", "gemma2"],
)  # fmt: skip
def test_a_model_that_does_not_bear_it_is_left_as_it_was(config: Any) -> None:
    auto = AutoModelForMaskedLM if "Deberta" in type(config).__name__ else AutoModelForCausalLM
    model = auto.from_config(config).eval()
    before, batch = model.config._attn_implementation, padded(rows())
    with torch.no_grad():
        logits = model(**batch).logits
        assert not unpadding.install(model)
        assert model.config._attn_implementation == before
        assert torch.equal(model(**batch).logits, logits)
    assert unpadding.tokens_at_once(spec(), model, "cpu") is None
    for name, value in (("packing", True), ("micro_batch_tokens", 64)):
        with pytest.raises(InvalidRequest, match="need their padding") as caught:
            unpadding.tokens_at_once(spec(**{name: value}), model, "cpu")
        assert caught.value.param == name


def test_leaking_attention_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(*args: Any, segments: Segments | None = None, **kwargs: Any) -> Any:
        if segments is not None:
            count = sum(length * number for length, number in segments.runs)
            segments = Segments(segments.shape, ((count, 1),), segments.ends, segments.places)
        return attention.attend(*args, segments=segments, **kwargs)

    monkeypatch.setitem(attention.AttentionInterface._global_mapping, attention.NAME, leaking)
    for name in ("llama", "bert"):
        model = made(name)
        assert not unpadding.install(model)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_what_fills_a_pack_up_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled, gradients = [], []
    of = Segments.of

    def seen(mask: torch.Tensor, order: torch.Tensor | None = None) -> Segments:
        segments = of(mask, order)
        filled.append((segments.filled, len(segments.places)))
        return segments

    monkeypatch.setattr(Segments, "of", seen)
    for multiple in (1, 64):
        monkeypatch.setattr(layout, "ROUND", multiple)
        model = made(name)
        assert unpadding.install(model)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**padded(rows())).logits
        logits.float().square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    tokens = sum(LENGTHS)
    assert (0, tokens) in filled
    assert filled[-1] == (64 - tokens, 64)
    for plain, beside in zip(*gradients, strict=True):
        scale = float(plain.abs().max())
        torch.testing.assert_close(plain, beside, atol=0.02 * scale, rtol=0)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(0, 99))
def test_a_layout_gives_every_token_its_place_back(lengths: list[int], seed: int) -> None:
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    segments = Segments.of(mask.long())
    values = torch.rand(*mask.shape, 3, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(segments.padded(segments.flat(values)), values * mask[..., None])
    assert [n for length, count in segments.runs for n in [length] * count] == sorted(lengths)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(1, 20))
def test_packs_hold_every_row_once_within_their_limits(lengths: list[int], size: int) -> None:
    ascending = np.sort(np.array(lengths))
    packs = best_fit(ascending, size, tokens=64)
    assert sorted(np.concatenate(packs)) == list(range(len(lengths)))
    assert all(len(pack) <= size and ascending[pack].sum() <= 64 for pack in packs)
    if size == 20:
        # No pack could have been put into another.
        sums = sorted(int(ascending[pack].sum()) for pack in packs if len(pack) <= 10)
        assert len(sums) < 2 or sums[0] + sums[1] > 64


def test_a_row_of_more_tokens_than_a_pack_has_one_of_its_own() -> None:
    assert [p.tolist() for p in best_fit(np.array([3, 9, 100]), 8, 16)] == [[2], [0, 1]]


def test_packed_and_padded_runs_learn_the_same(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base", dropout=0.0)
    losses = []
    for packing in (True, False):
        folder = job_folder(tmp_path / f"job-{packing}", base)
        records = run(folder.job(spec(packing=packing, micro_batch_tokens=40 if packing else None)))
        losses.append([r["values"]["loss"] for r in of_type(records, "metrics", split="train")])
        assert "luthier_segments" not in (folder.path / "output" / "config.json").read_text()
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    assert losses[0] != losses[1]


def test_an_evaluation_takes_no_more_tokens_at_once_than_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And finds the same as one by rows, whose last batch is shorter than the others."""
    base = tiny_bert(tmp_path / "base", dropout=0.0)
    sizes: list[tuple[int, int]] = []

    class Watched(TextClassification):
        def collate(self, examples: Any, rows: Any, epoch: int | None = None) -> Any:
            if epoch is None:
                sizes.append((len(rows), int(examples.lengths[rows].sum())))
            return super().collate(examples, rows, epoch)

    monkeypatch.setattr("training.tasks.text_classification.TASK", Watched)
    found = []
    for packing in (True, False):
        sizes.clear()
        folder = job_folder(tmp_path / f"job-{packing}", base, valid=texts(23, seed=1))
        short = {"learning_rate": 1e-9, "total_steps": 2, "eval_every": 2, "valid_rows": 23}
        records = run(
            folder.job(spec(packing=packing, micro_batch_tokens=40 if packing else None, **short))
        )
        found.append(of_type(records, "metrics", split="valid")[0]["values"])
        beyond = [batch for batch in sizes if batch[0] > 1 and batch[1] > 40]
        assert bool(beyond) is not packing
        assert max(rows for rows, _ in sizes) == 4
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_label_is_told_from_its_own_row_alone(tmp_path: Path) -> None:
    """The shift by one place does not reach over the boundary between packed rows."""
    case = next(case for case in CASES if case.name == "chats")
    folder: JobFolder = case.folder(tmp_path / "job")
    task = tasks.create(case.spec(), print)
    model = tuning.load(task, folder.model, None).eval()
    examples = task.read(folder.path / "train.arrow", "training_file", lambda: None)
    alone = [task.loss(model, task.collate(examples, np.array([n]))) for n in range(6)]
    assert unpadding.install(model)
    packed = task.loss(model, task.collate(examples, np.arange(6)))
    assert packed.count == sum(loss.count for loss in alone)
    assert packed.sum.item() == pytest.approx(sum(loss.sum.item() for loss in alone), rel=1e-6)


def test_cheap_dropout_drops_its_share_and_its_gradient_is_its_own() -> None:
    torch.manual_seed(0)
    x = torch.rand(400, 501).add_(0.5).requires_grad_()
    out = dropout.dropout(x, 0.1)
    kept = out != 0
    assert float(kept.float().mean()) == pytest.approx(0.9, abs=0.002)
    torch.testing.assert_close(out[kept], x.detach()[kept] / 0.9, rtol=1e-4, atol=0)
    # Neighbours, which share a draw, are independent of each other.
    pairs = (~kept[:, :-1] & ~kept[:, 1:]).float().mean()
    assert float(pairs) == pytest.approx(0.01, abs=0.001)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, functional.dropout(torch.ones(1), 0.0) * out / x.detach())
    torch.manual_seed(1)
    first = dropout.dropout(x, 0.5)
    torch.manual_seed(1)
    assert torch.equal(first, dropout.dropout(x, 0.5))


def test_attention_with_dropout_has_the_mean_of_attention_without() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    segments = Segments.of(mask)
    query = torch.randn(1, 4, 8, 16)
    key, value = torch.randn(1, 2, 8, 16), torch.randn(1, 2, 8, 16)
    module = torch.nn.Module()
    exact, _ = attention.attend(module, query, key, value, None, segments=segments)
    drawn = torch.stack(
        [
            attention.attend(module, query, key, value, None, 0.2, segments=segments)[0]
            for _ in range(800)
        ]
    )
    assert not torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(drawn.mean(dim=0), exact, atol=0.15, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_in_16_bits_is_that_of_32(causal: bool) -> None:
    torch.manual_seed(0)
    segments = Segments.of(torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]))
    module = torch.nn.Module()
    found = []
    states = [torch.randn(1, heads, 11, 16) for heads in (4, 2, 2)]
    for kind in (torch.float32, torch.bfloat16):
        parts = [part.to(kind, copy=True).requires_grad_() for part in states]
        out, _ = attention.attend(module, *parts, None, is_causal=causal, segments=segments)
        out.float().square().sum().backward()
        found.append([out.float(), *(part.grad for part in parts)])
    for exact, half in zip(*found, strict=True):
        torch.testing.assert_close(exact, half.float(), atol=0.1, rtol=0.05)
