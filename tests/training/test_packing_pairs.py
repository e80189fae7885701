"""A model that reads one text and writes another, without padding in either stack (trap 5)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    LongT5Config,
    M2M100Config,
    MarianConfig,
    T5Config,
    UMT5Config,
)

from core.errors import InvalidRequest
from tests.training.cases import CASES, Case, Rows, words
from tests.training.material import fresh_copy, of_type, run, spec
from training import attention, packed, unpadding, written_text
from training.layout import Segments
from training.sequences import IGNORED
from training.tasks.base import Batch
from training.tasks.translation import Translation

VOCABULARY = 50
OF_BART: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 3, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "max_position_embeddings": 64, "dropout": 0.0,
    "attention_dropout": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0,
    "init_std": 0.2,
}  # fmt: skip
OF_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 3,
    "num_decoder_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12, "dropout_rate": 0.0, "decoder_start_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, Callable[[], Any]] = {
    "t5": lambda: T5Config(**OF_T5),
    "umt5": lambda: UMT5Config(**OF_T5),
    "bart": lambda: BartConfig(**OF_BART),
    # It starts with its padding, which here ends no row.
    "marian": lambda: MarianConfig(**OF_BART, pad_token_id=49, decoder_start_token_id=49),
    "m2m": lambda: M2M100Config(**OF_BART),
}
SOURCES = (3, 17, 5, 5, 1, 17, 9, 12)
TARGETS = (4, 2, 11, 11, 7, 2, 1, 11)
"""In another order; of those with 11 tokens two have sources of one length."""
FEW_SOURCES, FEW_TARGETS = (3, 5, 3), (4, 11, 2)
"""All sources together have as many tokens as the longest target."""


def made(name: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(CONFIGS[name](), attn_implementation="sdpa")
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    return model.eval()


def texts(lengths: tuple[int, ...], pad: int, seed: int) -> list[torch.Tensor]:
    """Where it can, each has a padding token inside."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, 49, (length,), generator=generator) for length in lengths]
    for row in rows:
        row[1:-1][:1] = pad
    return rows


def batch_for(
    model: Any, read: tuple[int, ...] = SOURCES, written: tuple[int, ...] = TARGETS
) -> Batch:
    pad = model.config.pad_token_id
    join = torch.nn.utils.rnn.pad_sequence
    ids = join(texts(read, pad, 1), batch_first=True, padding_value=pad)
    mask = torch.arange(ids.shape[1])[None] < torch.tensor(read)[:, None]
    return Batch(
        {"input_ids": ids, "attention_mask": mask.long()},
        join(texts(written, pad, 2), batch_first=True, padding_value=IGNORED),
        sum(read) + sum(written),
    )


def own_gradients(model: Any, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    """By the padded model's own loss."""
    count = int((batch.targets != IGNORED).sum())
    loss = model(**batch.inputs, labels=batch.targets, use_cache=False).loss * count
    loss.backward()
    return float(loss.detach()), gradients(model)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def alike(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], most: float) -> None:
    assert mine.keys() == theirs.keys()
    # A key's bias has no gradient but for rounding.
    least = 1e-2 * max(float(grad.abs().max()) for grad in theirs.values())
    for name, grad in theirs.items():
        off = float((mine[name] - grad).abs().max())
        assert off <= most * max(least, float(grad.abs().max())), name


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_rows_give_the_padded_models_loss_and_gradients(name: str) -> None:
    mine, padded = made(name), made(name)
    plain = written_text.has_plain_head(mine)
    assert plain
    assert unpadding.install(mine)
    for read, written in ((SOURCES, TARGETS), (FEW_SOURCES, FEW_TARGETS)):
        batch = batch_for(mine, read, written)
        for model in (mine, padded):
            model.zero_grad()
        expected, theirs = own_gradients(padded, batch)
        loss = written_text.loss(mine, batch, "right", plain_head=plain)
        assert loss.count == sum(written)
        assert loss.sum.item() == pytest.approx(expected, rel=1e-5)
        loss.sum.backward()
        alike(gradients(mine), theirs, 1e-5)
        learnt = [name for name in theirs if "relative_attention_bias" in name]
        assert bool(learnt) is ("t5" in name)


@pytest.mark.parametrize("name", ["t5", "marian", "m2m"])
def test_layers_that_run_again_or_are_left_out_keep_to_the_layout(name: str) -> None:
    mine, padded = made(name), made(name)
    batch = batch_for(mine)
    assert unpadding.install(mine)
    mine.activation_checkpointing_enable({"use_reentrant": False})
    for share in (0.5, 1.0) if name == "m2m" else (0.0,):
        for model in (mine, padded):
            model.train().zero_grad()
            model.get_encoder().layerdrop = model.get_decoder().layerdrop = share
        torch.manual_seed(3)
        expected, theirs = own_gradients(padded, batch)
        torch.manual_seed(3)
        loss = written_text.loss(mine, batch, "right", plain_head=True)
        assert loss.sum.item() == pytest.approx(expected, rel=1e-5)
        loss.sum.backward()
        alike(gradients(mine), theirs, 1e-5)


@pytest.mark.parametrize("name", ["t5", "umt5", "bart"])
def test_a_row_reads_its_own_source_alone(name: str) -> None:
    model = made(name)
    assert unpadding.install(model)
    batch = batch_for(model)
    given: dict[str, Any] = {
        "labels": batch.targets, "use_cache": False,
        "decoder_attention_mask": (batch.targets != IGNORED).long(),
    }  # fmt: skip
    for row in (1, 3):
        changed = batch.inputs["input_ids"].clone()
        changed[row, : SOURCES[row]] += 1
        with torch.no_grad():
            before = model(**batch.inputs, **given).logits
            after = model(**{**batch.inputs, "input_ids": changed}, **given).logits
        for other, length in enumerate(TARGETS):
            moved = float((after - before)[other, :length].abs().max())
            assert moved > 1e-3 if other == row else moved < 1e-6, (row, other)


@pytest.mark.parametrize("name", ["t5", "marian"])
def test_what_it_writes_is_what_it_writes_padded(name: str) -> None:
    """With a cache the decoder is not packed, and what it knows of packed batches is forgotten."""
    mine, padded = made(name), made(name)
    assert unpadding.install(mine)
    batch = batch_for(mine)
    written_text.loss(mine, batch, "right", plain_head=True)
    limits = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(*(one.generate(**batch.inputs, **limits) for one in (mine, padded)))


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_in_16_bits_the_loss_is_that_of_32(name: str) -> None:
    model = made(name)
    assert unpadding.install(model)
    batch = batch_for(model)
    exact = written_text.loss(model, batch, "right", plain_head=True)
    with torch.autocast("cpu", torch.bfloat16):
        half = written_text.loss(model, batch, "right", plain_head=True)
    half.sum.backward()
    assert half.sum.item() == pytest.approx(exact.sum.item(), rel=0.02)
    assert half.sum.item() != exact.sum.item()
    assert all(torch.isfinite(grad).all() for grad in gradients(model).values())


def of_wrong_pairs(mask: torch.Tensor, source: torch.Tensor) -> Segments:
    """By the sources' own order, as if it were that of the targets."""
    return replace(Segments.of(mask), source=Segments.of(source))


@pytest.mark.parametrize("harm", ["pairs", "distances", "across"])
@pytest.mark.parametrize("name", ["t5", "marian"])
def test_what_is_not_the_padded_model_is_found_out(
    name: str, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the model is left as it was."""
    model = made(name)
    batch = batch_for(model)
    with torch.no_grad():
        before = model(**batch.inputs, labels=batch.targets).logits
    if harm == "pairs":
        monkeypatch.setattr(packed.Segments, "of_pairs", of_wrong_pairs)
    elif harm == "distances":
        monkeypatch.setattr(packed._Distances, "follow", lambda self, segments: None)
    else:
        monkeypatch.setattr(Segments, "across", Segments.within)
    harmless = harm == "distances" and name == "marian"
    assert unpadding.install(model) is harmless
    if harmless:
        return
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        assert torch.equal(model(**batch.inputs, labels=batch.targets).logits, before)


def test_a_model_whose_attention_is_its_own_stays_padded() -> None:
    model: Any = AutoModelForSeq2SeqLM.from_config(LongT5Config(**OF_T5, local_radius=3)).eval()
    batch = batch_for(model)
    assert not unpadding.install(model)
    plain = written_text.has_plain_head(model)
    loss = written_text.loss(model, batch, "right", plain_head=plain)
    assert loss.sum.item() == pytest.approx(own_gradients(model, batch)[0], rel=1e-5)
    with pytest.raises(InvalidRequest, match="need their padding"):
        unpadding.tokens_at_once(spec(packing=True), model, "cpu")


@pytest.mark.parametrize(
    ("across", "learns"), [(False, False), (False, True), (True, False)],
    ids=["itself", "itself by distance", "source"],
)  # fmt: skip
def test_attention_is_that_of_each_pair_by_itself(across: bool, learns: bool) -> None:
    """Of lengths of which some are of one group with padding, and some are far apart."""
    torch.manual_seed(0)
    lengths, sources = (4, 4, 1, 4, 4, 9), (5, 30, 2, 7, 5, 1)
    masks = [
        (torch.arange(max(of))[None] < torch.tensor(of)[:, None]).long()
        for of in (lengths, sources)
    ]
    segments = Segments.of_pairs(*masks)
    assert segments.source is not None
    assert [(g.count, g.keys) for g in segments.across] == [(1, 2), (3, 7), (1, 30), (1, 1)]
    keys, layout = (sources, segments.source) if across else (lengths, segments)
    query, key, value = (
        torch.randn(len(of), max(of), 2, 8, requires_grad=True) for of in (lengths, keys, keys)
    )
    bias = torch.randn(2, 9, 9, requires_grad=learns)
    module = torch.nn.Module()
    q, k, v = (
        own.flat(part).transpose(1, 2)
        for own, part in ((segments, query), (layout, key), (layout, value))
    )
    given = bias.flatten() if learns else torch.empty(0)
    flat, _ = attention.attend(
        module, q, k, v, None, scaling=1.0, is_causal=not across, segments=segments,
        position_bias=given,
    )  # fmt: skip
    out = segments.padded(flat)
    out.square().sum().backward()
    inputs = (query, key, value, *([bias] if learns else []))
    found = [part.grad.clone() for part in inputs if part.grad is not None]
    for part in inputs:
        part.grad = None
    assert len(found) == len(inputs)
    total = torch.zeros(())
    for row, (length, looked_at) in enumerate(zip(lengths, keys, strict=True)):
        mine = query[row, :length], key[row, :looked_at], value[row, :looked_at]
        q, k, v = (part.transpose(0, 1) for part in mine)
        scores = q @ k.transpose(1, 2) + (bias[:, :length, :length] if learns else 0)
        if not across:
            ahead = torch.ones(length, length).triu(1).bool()
            scores = scores.masked_fill(ahead, -torch.inf)
        expected = (scores.softmax(-1) @ v).transpose(0, 1)
        torch.testing.assert_close(out[row, :length], expected, atol=1e-5, rtol=1e-5)
        total = total + expected.square().sum()
    total.backward()
    for part, grad in zip(inputs, found, strict=True):
        torch.testing.assert_close(grad, part.grad, atol=1e-5, rtol=1e-4)


def varied(rows: int, seed: int) -> Rows:
    """A text of 3 to 20 words, and so many of its first."""
    draw = random.Random(seed)
    made: Rows = []
    for row in range(1, rows + 1):
        text = words(draw)
        begun = text[: draw.randint(1, len(text))]
        made.append({"id": row, "source": " ".join(text), "target": " ".join(begun)})
    return made


VARIED: Case = replace(next(case for case in CASES if case.name == "translation"), rows=varied)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_packed_and_padded_runs_learn_the_same(
    tuning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In packs of no more tokens, read and written, than asked for; an evaluation's as well."""
    packs: list[tuple[int, int]] = []

    class Watched(Translation):
        def collate(self, examples: Any, rows: Any, epoch: int | None = None) -> Batch:
            batch = super().collate(examples, rows, epoch)
            assert batch.tokens == int(examples.lengths[rows].sum())
            packs.append((len(rows), batch.tokens))
            return batch

    monkeypatch.setattr("training.tasks.translation.TASK", Watched)
    whole = VARIED.folder(tmp_path / "job")
    changes: dict[str, Any] = {"total_steps": 6, "eval_every": 6, "dropout": 0.0}
    if tuning == "lora":
        changes |= {"tuning": "lora", "lora": {"rank": 4}, "activation_checkpointing": True}
    found = []
    for packing in (True, False):
        packs.clear()
        folder = fresh_copy(whole, tmp_path / f"job-{packing}")
        tokens = 50 if packing else None
        records = run(
            folder.job(VARIED.spec(packing=packing, micro_batch_tokens=tokens, **changes))
        )
        found.append([r["values"] for r in of_type(records, "metrics")])
        beyond = [pack for pack in packs if pack[0] > 1 and pack[1] > 50]
        assert bool(beyond) is not packing
        assert "luthier_segments" not in (folder.path / "output" / "config.json").read_text()
    for mine, theirs in zip(*found, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert found[0][-1]["chrf"] == pytest.approx(found[1][-1]["chrf"], abs=1e-3)
