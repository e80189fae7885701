"""`torch_compile`: the same model in fewer kernels, and the same bits after a stop."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import cpp_builder

from core.errors import InvalidRequest
from tests.training.material import (
    JobFolder,
    StopAfter,
    fresh_copy,
    job_folder,
    of_type,
    run,
    spec,
    tiny_bert,
    tiny_t5,
    weights_of,
)
from training import compiled, samples, tasks
from training.tasks.base import Batch

SHORT: dict[str, Any] = {"total_steps": 6, "eval_every": 3, "checkpoint_every": 100}
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kernels of this module's own, which are compiled here indeed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        yield


def losses(records: list[dict[str, Any]]) -> list[float]:
    return [record["values"]["loss"] for record in of_type(records, "metrics")]


@needs_compiler
@pytest.mark.parametrize("packing", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_compiled_layers_learn_the_same(tmp_path: Path, packing: bool) -> None:
    base = tiny_bert(tmp_path / "base", dropout=0.0)
    plain = job_folder(tmp_path / "plain", base)
    expected = losses(run(plain.job(spec(**SHORT, packing=packing))))
    counters.clear()
    folder = job_folder(tmp_path / "compiled", base)
    found = losses(run(folder.job(spec(**SHORT, packing=packing, torch_compile=True))))
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["unimplemented"], counters["unimplemented"]
    assert found == pytest.approx(expected, rel=1e-4)


@needs_compiler
def test_nothing_is_compiled_for_samples_and_for_texts_that_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take longer than a report waits for its samples."""
    folder = job_folder(tmp_path / "job", tiny_bert(tmp_path / "base"))
    leave, compiled_for_samples = samples.leave, []

    def forgetful(*args: Any) -> None:
        torch._dynamo.reset()  # whatever goes through torch.compile now is compiled once more
        counters.clear()
        leave(*args)
        compiled_for_samples.append(counters["frames"]["ok"])

    monkeypatch.setattr(samples, "leave", forgetful)
    run(folder.job(spec(**SHORT, torch_compile=True)))
    assert compiled_for_samples == [0]

    task = tasks.create(
        spec(task="translation", metric="loss", greater_is_better=False), lambda _: None
    )
    model = task.load(tiny_t5(tmp_path / "t5"), exact=False).eval()
    compiled.install(model)
    counters.clear()
    inputs = {"input_ids": torch.tensor([[5, 6, 3]]), "attention_mask": torch.ones(1, 3).long()}
    written = task._write(model, Batch(inputs, torch.empty(0), tokens=3))  # type: ignore[attr-defined]
    assert len(written) == 1
    assert not counters["frames"]["ok"]


@needs_compiler
def test_a_compiled_run_ends_in_the_same_bits_after_a_stop(tmp_path: Path) -> None:
    plan = spec(
        **SHORT, torch_compile=True, tuning="lora", lora={"rank": 2}, ema_decay=0.9,
        activation_checkpointing=True,
    )  # fmt: skip
    folder = job_folder(tmp_path / "job", tiny_bert(tmp_path / "base", dropout=0.1))
    broken = fresh_copy(folder, tmp_path / "broken")
    run(folder.job(plan))
    torch._dynamo.reset()
    run(broken.job(plan), StopAfter(broken, 3))
    torch._dynamo.reset()
    run(broken.job(plan, resume_from=broken.newest_checkpoint()))
    assert weights_of(broken.path / "output") == weights_of(folder.path / "output")


def test_what_cannot_be_compiled_here_is_refused_before_the_first_step(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "empty"))
    cpp_builder.cpp_compiler_search.cache_clear()
    torch._dynamo.reset()
    with pytest.raises(InvalidRequest, match="the worker's compiler fails") as caught:
        run(folder.job(spec(**SHORT, torch_compile=True)))
    assert caught.value.param == "torch_compile"
    assert "\n" not in str(caught.value)
