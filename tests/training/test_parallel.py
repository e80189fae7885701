"""Two ranks do what one process does with the same batches, and come through stops alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from core.errors import InvalidRequest
from tests.training.cases import CASES
from tests.training.material import (
    JobFolder,
    Record,
    StopAfter,
    fresh_copy,
    job_folder,
    of_type,
    recording,
    run,
    spec,
    texts,
    tiny_bert,
    weights_of,
)
from tests.training.rank_processes import in_ranks, job_of_ranks, run_ranks
from training import accumulate, checkpoint
from training.control import Control
from training.job import Job
from training.parallel import Ranks
from training.run import Run

BY_NAME = {case.name: case for case in CASES}
STEPS = 12
ODD_ROWS = 41
"""In batches of 8 the last one of an epoch has one row, and the second rank none."""


def points(records: list[Record]) -> list[tuple[str, int, dict[str, Any]]]:
    return [
        (r["split"], r["step"], {k: v for k, v in r["values"].items() if "per_second" not in k})
        for r in of_type(records, "metrics")
    ]


def same_but_for_rounding(
    ours: tuple[JobFolder, list[Record]], theirs: tuple[JobFolder, list[Record]]
) -> None:
    """Every metric of every step and evaluation, and the weights that came out."""
    (folder, records), (expected_folder, expected) = ours, theirs
    assert records[-1]["type"] == expected[-1]["type"] == "done"
    assert len(points(records)) == len(points(expected)) > STEPS
    for (*where, values), (*there, wanted) in zip(points(records), points(expected), strict=True):
        assert where == there
        # Where the gradient all but vanishes, so do its first digits.
        assert values == pytest.approx(wanted, rel=1e-4, abs=1e-5), where
    found, wanted = (
        load_file(f.path / "output" / "model.safetensors") for f in (folder, expected_folder)
    )
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], atol=2e-5, rtol=1e-3, msg=name)


def of_case(name: str, tmp_path: Path) -> tuple[JobFolder, Any]:
    """A job without dropout, whose masks would differ by rank."""
    if name == "one-label":
        base = tiny_bert(tmp_path / "base", dropout=0.0)
        plan = spec(total_steps=STEPS, train_rows=ODD_ROWS, eval_every=5, micro_batch_size=3)
        return job_folder(tmp_path / "one", base, train=texts(ODD_ROWS)), plan
    case = BY_NAME[name]
    folder = case.folder(tmp_path / "one")
    lora = {"lora": {"rank": 4}} if "lora" in case.changes else {}
    return folder, case.spec(
        total_steps=STEPS, eval_every=5, dropout=0.0, learning_rate=1e-3, **lora,
        micro_batch_tokens=64,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shardings"),
    [
        ("one-label", ("none", "full")),
        ("chats-lora", ("none", "full")),
        pytest.param("translation", ("none",), marks=pytest.mark.slow),
    ],
)
def test_two_ranks_give_the_losses_and_weights_of_one_process(
    name: str, shardings: tuple[str, ...], tmp_path: Path
) -> None:
    """Ranks with other numbers of learnt tokens, of packs, and one without rows; metrics on tokens
    and on texts, each validation row once; with all weights in each rank, and with half of them."""
    one, plan = of_case(name, tmp_path)
    alone = run(one.job(plan))
    for sharding in shardings:
        two = fresh_copy(one, tmp_path / sharding)
        records = run_ranks(job_of_ranks(two, plan, 2, sharding=sharding))
        same_but_for_rounding((two, records), (one, alone))


@pytest.fixture(scope="module", params=["none", "full"])
def unbroken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> tuple[str, JobFolder, list[Record]]:
    """Two ranks with dropout, run to the end."""
    sharding = request.param
    folder = job_folder(tmp_path_factory.mktemp("ranks") / "job", tiny_model)
    job = job_of_ranks(folder, spec(total_steps=STEPS), 2, sharding=sharding)
    return sharding, folder, run_ranks(job)


def test_a_stop_reaches_all_ranks_at_one_step_and_a_resume_gives_the_same_bits(
    unbroken: tuple[str, JobFolder, list[Record]], tmp_path: Path
) -> None:
    sharding, whole, expected = unbroken
    folder = fresh_copy(whole, tmp_path / "job")
    job = job_of_ranks(folder, spec(total_steps=STEPS), 2, sharding=sharding)
    first = run_ranks(job, lambda: StopAfter(folder, 7))
    assert first[-1] == {"type": "stopped", "time": first[-1]["time"], "step": 7}
    saved = folder.newest_checkpoint()
    state = checkpoint.read_state(saved)
    assert state["state"]["step"] == 7
    ours, peers = state["rng"]
    assert not torch.equal(ours["torch"], peers["torch"])

    goes_on = job_of_ranks(
        folder, spec(total_steps=STEPS), 2, sharding=sharding, resume_from=str(saved)
    )
    again = run_ranks(goes_on)
    assert points(first) + points(again) == points(expected)
    assert weights_of(folder.path / "output") == weights_of(whole.path / "output")
    assert not of_type(again, "log", level="warn")


def test_a_resume_with_another_number_of_ranks_is_told(
    unbroken: tuple[str, JobFolder, list[Record]], tmp_path: Path
) -> None:
    sharding, whole, _ = unbroken
    folder = fresh_copy(whole, tmp_path / "job")
    saved = next((whole.path / "checkpoints").glob("step-*"))
    more = spec(total_steps=STEPS + 2, n_epochs=2)
    records = run(folder.job(more, resume_from=saved))
    (warning,) = of_type(records, "log", level="warn")
    other = "ranks, sharding" if sharding == "full" else "ranks"
    assert f"other {other} than before" in warning["message"]
    assert (warning["data"]["before"]["ranks"], warning["data"]["now"]["ranks"]) == (2, 1)
    assert records[-1]["type"] == "done"


def held(run: Run) -> int:
    """Bytes of weights, gradients and optimizer state in this process."""
    tensors = [*run.model.parameters(), *(p.grad for p in run.model.parameters())]
    tensors += [t for state in run.optimizer.state.values() for t in state.values()]
    parts = [t.to_local() if isinstance(t, DTensor) else t for t in tensors if t is not None]
    return sum(part.numel() * part.element_size() for part in parts)


def test_a_rank_with_its_part_of_the_weights_holds_half(folder: JobFolder, tmp_path: Path) -> None:
    bytes_of: dict[str, int] = {}
    for sharding in ("none", "full"):
        job = job_of_ranks(folder, spec(), 2, sharding=sharding)

        def one(ranks: Ranks, job: Job = job) -> None:
            with recording(tmp_path / f"records-{ranks.rank}") as (records, _):
                run = Run(job, records, Control(), ranks)
                run.read_data()
                run.step()
                # Between steps nothing is gathered.
                run.model.reshard() if ranks.sharded else None
                (tmp_path / f"bytes-{ranks.rank}").write_text(str(held(run)))

        in_ranks(folder.path, 2, one, sharded=sharding == "full")
        bytes_of[sharding] = max(int((tmp_path / f"bytes-{n}").read_text()) for n in range(2))
    assert bytes_of["none"] > 0
    assert bytes_of["full"] < 0.55 * bytes_of["none"]


@pytest.mark.parametrize(
    ("name", "changes"), [("translation", {}), ("masks", {"ema_decay": 0.9}), ("pairs", {})]
)
def test_what_ranks_cannot_share_is_refused(
    name: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    case = BY_NAME[name]
    job = case.folder(tmp_path / "job").job(case.spec(**changes))
    with (
        recording(tmp_path / "records") as (records, _),
        pytest.raises(InvalidRequest, match="2 processes cannot share") as caught,
    ):
        Run(job, records, Control(), Ranks(0, 2, sharded=True))
    assert caught.value.error_code == "unsupported_resources"


def test_a_rank_without_memory_makes_all_retreat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, plan = of_case("one-label", tmp_path)
    two = fresh_copy(one, tmp_path / "two")
    alone = run(one.job(plan))
    share = accumulate._share

    def short(task: Any, model: Any, examples: Any, parts: Any, *rest: Any) -> Any:
        # The second rank's at the third step; the first has four rows there as well.
        if task.rank == 1 and max(map(len, parts), default=0) > 2:
            raise torch.OutOfMemoryError("for the test")
        return share(task, model, examples, parts, *rest)

    class Numbered(Run):
        def __init__(self, job: Any, records: Any, control: Any, ranks: Ranks) -> None:
            super().__init__(job, records, control, ranks)
            self.task.rank = ranks.rank

    monkeypatch.setattr(accumulate, "_share", short)
    monkeypatch.setattr("training.loop.Run", Numbered)
    records = run_ranks(job_of_ranks(two, plan, 2))
    (warning,) = of_type(records, "log", level="warn")
    assert "Out of memory with 3 rows at a time: going on with 2" in warning["message"]
    same_but_for_rounding((two, records), (one, alone))
