from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2ForCTC

from core.errors import InvalidRequest
from tests.training.cases import CASES, Case
from tests.training.causal import tiny_llama
from tests.training.material import JobFolder, run, saved, tiny_bert
from tests.training.sounds import wav2vec2_config
from training import tasks, tuning
from training.layers import depths

BY_NAME = {case.name: case for case in CASES}


def tuned(case: Case, folder: JobFolder, **changes: Any) -> Any:
    task = tasks.create(case.spec(**changes), lambda message: None)
    return tuning.load(task, folder.model, None)


@pytest.mark.parametrize("name", ["chats", "many-labels", "entities"])
@pytest.mark.parametrize("kind", [{}, {"rslora": True}, {"dora": True}])
def test_merged_weights_give_the_adapters_logits(
    tmp_path: Path, name: str, kind: dict[str, bool]
) -> None:
    case = BY_NAME[name]
    folder = case.folder(tmp_path / "job")
    chosen = case.spec(
        tuning="lora", lora={"rank": 4, "dropout": 0.1, **kind}, total_steps=4, learning_rate=0.02
    )
    run(folder.job(chosen))
    output = folder.path / "output"
    task = tasks.create(chosen, print)
    merged = task.load(output, exact=True).eval()
    examples = task.read(folder.path / "valid.arrow", "validation_file", lambda: None)
    batch = task.collate(examples, np.arange(6))
    base = case.auto.from_pretrained(folder.model, config=merged.config)
    bare = base.eval()(**batch.inputs)[0]
    adapted = PeftModel.from_pretrained(base, output / "adapter").eval()
    with torch.no_grad():
        ours, theirs = merged(**batch.inputs)[0], adapted(**batch.inputs)[0]
    assert float((ours - theirs).abs().max()) < 1e-5
    assert float((ours - bare).abs().max()) > 1e-3
    config = json.loads((output / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-bert"
    assert str(tmp_path) not in json.dumps(config)
    # The base's weights are not in the adapter.
    size = sum(tensor.numel() for tensor in load_file(output / "adapter" / tuning.WEIGHTS).values())
    assert size < sum(p.numel() for p in merged.parameters()) / 2


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_leave_embeddings_and_head_of_a_language_model(tmp_path: Path, tied: bool) -> None:
    folder = JobFolder(tmp_path, tiny_llama(tmp_path / "base", tied=tied))
    case = BY_NAME["chats"]
    model = tuned(case, folder, tuning="lora", lora={"rank": 2})
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 2
    assert all(".lora_" in name for name in trained)
    tuning.save(tasks_of(case, folder), model, tmp_path / "out")
    plain = case.auto.from_pretrained(tmp_path / "out")
    assert (plain.lm_head.weight is plain.model.embed_tokens.weight) is tied
    before = case.auto.from_pretrained(folder.model)
    assert torch.equal(plain.lm_head.weight, before.lm_head.weight)


def tasks_of(case: Case, folder: JobFolder) -> Any:
    task = tasks.create(case.spec(), print)
    task.load(folder.model, exact=False)
    return task


def test_a_checkpoint_leaves_the_trained_weights_as_they_were(tmp_path: Path) -> None:
    case = BY_NAME["many-labels"]
    folder = JobFolder(tmp_path, tiny_bert(tmp_path / "base"))
    model = tuned(case, folder, tuning="lora", lora={})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tuning.save(tasks_of(case, folder), model, tmp_path / "out")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("chosen", "trained"),
    [
        ({"layers": 1}, {"bert.encoder.layer.1", "bert.pooler", "classifier"}),
        ({"head_only": True}, {"classifier"}),
        (
            {"patterns": ["bert.embeddings.*", "bert.encoder.*"]},
            {"bert.pooler", "classifier"},
        ),
        (
            {"layers": 2, "patterns": ["*.pooler.*", "classifier.weight"]},
            {"classifier.weight", "classifier.bias"},
        ),
    ],
)
def test_what_is_frozen_stays(tmp_path: Path, chosen: dict[str, Any], trained: set[str]) -> None:
    case = BY_NAME["many-labels"]
    folder = case.folder(tmp_path / "job")
    frozen = case.spec(tuning="freeze", freeze=chosen, total_steps=3)
    start = tasks.create(frozen, print).load(folder.model, exact=False).state_dict()
    run(folder.job(frozen))
    moved = {
        name
        for name, tensor in load_file(folder.path / "output" / "model.safetensors").items()
        if not torch.equal(tensor, start[name])
    }
    assert moved == {name for name in moved if name.startswith(tuple(trained))}
    assert {prefix for prefix in trained if any(n.startswith(prefix) for n in moved)} == trained
    state = torch.load(
        folder.newest_checkpoint() / "training_state.pt", weights_only=True, map_location="cpu"
    )
    assert len(state["optimizer"]["state"]) == len(moved)


@pytest.mark.parametrize(
    ("name", "chosen", "reason"),
    [
        ("many-labels", {"layers": 3}, "it has 2 layers"),
        ("many-labels", {"patterns": ["nothing.*"]}, "like 'nothing"),
        ("chats", {"head_only": True}, "its head is its embeddings"),
        ("chats", {"patterns": ["*"]}, "nothing would be left"),
    ],
)
def test_what_the_model_has_not_is_refused_with_the_reason(
    tmp_path: Path, name: str, chosen: dict[str, Any], reason: str
) -> None:
    case = BY_NAME[name]
    folder = JobFolder(tmp_path, case.base(tmp_path / "base"))
    with pytest.raises(InvalidRequest, match=reason):
        tuned(case, folder, tuning="freeze", freeze=chosen)


def test_an_adapter_names_the_weights_that_it_fits(tmp_path: Path) -> None:
    """Of a job that goes on from another's result, those are not the base model's."""
    case = BY_NAME["chats-lora"]
    folder = JobFolder(tmp_path, case.base(tmp_path / "base"))
    started = tuned(case, folder, from_checkpoint="ft:tiny:1", model_revision="abc")
    config = started.peft_config["default"]
    assert (config.base_model_name_or_path, config.revision) == ("ft:tiny:1", None)
    started = tuned(case, folder, model_revision="abc")
    config = started.peft_config["default"]
    assert (config.base_model_name_or_path, config.revision) == ("tiny-bert", "abc")


def test_what_hears_before_the_lowest_layer_is_frozen_with_it(tmp_path: Path) -> None:
    """A model on waves has convolutions where one on texts has embeddings."""
    case = BY_NAME["ctc"]
    base = case.base(tmp_path / "base")
    config = wav2vec2_config()
    config.num_hidden_layers = 3
    saved(base, Wav2Vec2ForCTC, config)
    model = tuned(case, JobFolder(tmp_path, base), tuning="freeze", freeze={"layers": 2})
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    starts = ("wav2vec2.encoder.layers.2.", "lm_head.")
    assert trained
    assert trained == {name for name, _ in model.named_parameters() if name.startswith(starts)}
    found = depths(model)
    assert found["wav2vec2.feature_extractor.conv_layers.0.conv.weight"] == 4
    assert found["wav2vec2.encoder.layers.0.attention.q_proj.weight"] == 3
    assert found["lm_head.weight"] == 0


def test_a_vector_of_the_bodys_own_does_not_bring_the_body_along(tmp_path: Path) -> None:
    """Files of Wav2Vec2 often lack what stands for hidden frames."""
    case = BY_NAME["ctc"]
    base = case.base(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    del weights["wav2vec2.masked_spec_embed"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    model = tuned(case, JobFolder(tmp_path, base), tuning="lora", lora={"rank": 2})
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name or "lm_head" in name for name in trained)
