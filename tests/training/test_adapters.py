from __future__ import annotations

import copy
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from tests.training.cases import CASES
from tests.training.causal import tiny_llama
from tests.training.material import JobFolder, of_type, run
from training import adapters, attention, blockwise, cross_entropy, dropout, tasks, tuning

BY_NAME = {case.name: case for case in CASES}
TOKENS = torch.tensor([[1, 5, 9, 30, 77, 4, 8], [2, 6, 60, 61, 7, 3, 11]])


def adapted(folder: Path, *, share: float = 0.0, **kind: Any) -> Any:
    """A language model with adapters that do something."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama(folder), dtype=torch.float32)
    torch.manual_seed(1)
    chosen = LoraConfig(r=4, lora_alpha=8, lora_dropout=share, target_modules="all-linear", **kind)
    model = get_peft_model(model, chosen)
    dropout.install(model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.train()


def learnt(model: Any, *, half: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits, and the gradient of each adapter."""
    torch.manual_seed(3)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model(input_ids=TOKENS, use_cache=False).logits
    logits.float().logsumexp(dim=-1).sum().backward()
    return logits.detach(), {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_one_function_gives_what_pefts_layers_give(
    tmp_path: Path, share: float, half: bool
) -> None:
    theirs = adapted(tmp_path, share=share)
    ours = copy.deepcopy(theirs)
    adapters.install(ours)
    for mode in (True, False):
        expected, gradients = learnt(theirs.train(mode), half=half)
        logits, found = learnt(ours.train(mode), half=half)
        largest = float(expected.abs().max())
        assert torch.allclose(logits, expected, atol=(0.03 if half else 1e-5) * largest)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert gradient.norm() > 0
            # Of a key's projection little is left but what rounding made.
            off = (found[name] - gradient).norm() / gradient.norm()
            assert off < (0.1 if half else 1e-4), name
    with ours.disable_adapter(), theirs.disable_adapter(), torch.no_grad():
        assert torch.equal(ours(TOKENS).logits, theirs(TOKENS).logits)


def test_variants_of_lora_stay_with_peft(tmp_path: Path) -> None:
    theirs = adapted(tmp_path, use_dora=True)
    ours = copy.deepcopy(theirs)
    adapters.install(ours)
    adapters.hold(ours, torch.bfloat16)
    assert torch.equal(learnt(ours)[0], learnt(theirs)[0])


def test_held_weights_are_those_that_autocast_makes(tmp_path: Path) -> None:
    whole = adapted(tmp_path)
    held = copy.deepcopy(whole)
    for model in (whole, held):
        adapters.install(model)
    adapters.hold(held, torch.bfloat16)
    dtypes = {name: p.dtype for name, p in held.named_parameters()}
    bases = {name for name in dtypes if "base_layer" in name}
    assert len(bases) == 2 * 7
    assert {name for name, dtype in dtypes.items() if dtype == torch.bfloat16} == bases
    (expected, gradients), (logits, found) = (learnt(model, half=True) for model in (whole, held))
    assert torch.equal(logits, expected)
    assert all(torch.equal(found[name], gradient) for name, gradient in gradients.items())


def test_a_held_head_gives_the_loss_that_autocast_gives(tmp_path: Path) -> None:
    whole = adapted(tmp_path)
    held = copy.deepcopy(whole)
    for model in (whole, held):
        adapters.install(model)
    adapters.hold(held, torch.bfloat16)
    # A buffer goes where the model goes.
    assert [name for name, _ in held.named_buffers() if adapters.HELD in name]
    found = []
    for model in (whole, held):
        known = torch.ones_like(TOKENS, dtype=torch.bool)
        with torch.autocast("cpu", torch.bfloat16):
            given = {"input_ids": TOKENS, "use_cache": False}
            loss = cross_entropy.of_head(model, given, known, TOKENS[known], "right")
        loss.sum.backward()
        found.append([loss.sum, *(p.grad for p in model.parameters() if p.requires_grad)])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


@pytest.mark.parametrize("in_half", [False, True])
def test_what_is_written_was_never_rounded(tmp_path: Path, in_half: bool) -> None:
    """The base's own weights, whatever they were trained beside, with the adapter in fp32."""
    case = BY_NAME["chats"]
    folder = JobFolder(tmp_path, tiny_llama(tmp_path / "base"))
    if in_half:
        model = AutoModelForCausalLM.from_pretrained(folder.model, dtype=torch.bfloat16)
        model.save_pretrained(folder.model)
    task = tasks.create(case.spec(tuning="lora", lora={"rank": 2}), print)
    read = []
    held = tuning.load(task, folder.model, None, torch.bfloat16)
    load, task.model_class = task.model_class, _Counting(task.model_class, read)
    try:
        tuning.save(task, held, tmp_path / "out")
    finally:
        task.model_class = load
    # Nothing was lost by holding weights that were in 16 bits before.
    assert bool(read) is not in_half
    before = load_file(folder.model / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor.float()) for name, tensor in before.items())


def test_what_is_merged_to_be_written_does_not_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tasks.create(BY_NAME["chats"].spec(tuning="lora", lora={"rank": 2}), print)
    model = tuning.load(task, tiny_llama(tmp_path / "base"), None)
    merged, write = [], task.save

    def save(model: Any, folder: Path) -> None:
        merged.extend(map(weakref.ref, model.parameters()))
        write(model, folder)

    monkeypatch.setattr(task, "save", save)
    tuning.save(task, model, tmp_path / "out")
    trained = {id(parameter) for parameter in model.parameters()}
    assert merged
    assert not [parameter for kept in merged if (parameter := kept()) is not None
                and id(parameter) not in trained]  # fmt: skip


class _Counting:
    def __init__(self, auto: Any, read: list[Any]) -> None:
        self._auto, self._read = auto, read
        self._model_mapping = auto._model_mapping

    def from_pretrained(self, folder: Path, **options: Any) -> Any:
        self._read.append(folder)
        return self._auto.from_pretrained(folder, **options)


def test_a_run_in_16_bits_ends_with_the_bases_weights_and_its_adapter(tmp_path: Path) -> None:
    case = BY_NAME["chats-lora"]
    folder = case.folder(tmp_path / "job")
    spec = case.spec(precision="bf16", total_steps=4, learning_rate=0.02)
    records = run(folder.job(spec))
    assert of_type(records, "done")
    output = folder.path / "output"
    base = AutoModelForCausalLM.from_pretrained(folder.model, dtype=torch.float32)
    expected = PeftModel.from_pretrained(base, output / "adapter").merge_and_unload()
    found = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    for (name, ours), theirs in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6), name


def test_attention_takes_positions_in_32_bits_with_values_in_16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As autocast leaves them: the way for 16 bits is taken, and gives its result in 16 bits."""
    seen: list[torch.dtype] = []
    by_blocks = blockwise.attention

    def watched(query: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        seen.append(query.dtype)
        return by_blocks(query, *rest, **named)

    monkeypatch.setattr(blockwise, "attention", watched)
    segments = attention.Segments.of(torch.ones(2, 5, dtype=torch.int64))
    query, key = (torch.randn(1, 2, 10, 4) for _ in range(2))
    value = torch.randn(1, 2, 10, 4, dtype=torch.bfloat16)
    out, _ = attention.attend(nn.Module(), query, key, value, None, segments=segments)
    assert (seen, out.dtype) == ([torch.bfloat16], torch.bfloat16)
