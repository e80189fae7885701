"""The queue played through."""

from __future__ import annotations

from models.queue import Place, Slot, Waiting, play

CPU, CUDA = frozenset({"cpu"}), frozenset({"cpu", "cuda"})


def waiting(id: str, seconds: float | None = 10, project: str = "p", **values: object) -> Waiting:
    fields = {"priority": 0, "requires": frozenset[str]()} | values
    return Waiting(id, project, seconds=seconds, **fields)  # type: ignore[arg-type]


def starts(places: dict[str, Place]) -> dict[str, float | None]:
    return {job: place.starts_in for job, place in places.items()}


def test_one_worker_takes_one_after_the_other() -> None:
    places = play([waiting("a"), waiting("b", 30), waiting("c")], [Slot(CPU, 5.0, "p")])
    assert starts(places) == {"a": 5.0, "b": 15.0, "c": 45.0}
    assert [places[job].position for job in "abc"] == [1, 2, 3]


def test_two_workers_share_the_queue() -> None:
    slots = [Slot(CPU, 0.0), Slot(CPU, 3.0)]
    places = play([waiting("a", 100), waiting("b"), waiting("c")], slots)
    assert starts(places) == {"a": 0.0, "b": 3.0, "c": 13.0}


def test_priority_then_the_project_with_fewer_running_then_age() -> None:
    jobs = [waiting("old", project="busy"), waiting("idle", project="idle"),
            waiting("urgent", project="busy", priority=5)]  # fmt: skip
    slots = [Slot(CPU, 0.0), Slot(CPU, 100.0, "busy")]
    assert starts(play(jobs, slots)) == {"urgent": 0.0, "idle": 10.0, "old": 20.0}


def test_a_job_waits_for_a_worker_that_can_run_it() -> None:
    slots = [Slot(CPU, 0.0), Slot(CUDA, 50.0)]
    jobs = [waiting("gpu", requires=frozenset({"cuda"})), waiting("any", 200)]
    places = play(jobs, slots)
    assert starts(places) == {"any": 0.0, "gpu": 50.0}
    alone = play(jobs, slots[:1])
    assert alone["gpu"] == Place(2, None)


def test_a_job_of_unknown_length_hides_what_comes_after() -> None:
    places = play([waiting("a", None), waiting("b")], [Slot(CPU, 1.0), Slot(CPU, None, "p")])
    assert starts(places) == {"a": 1.0, "b": None}
    assert places["b"].position == 2


def test_without_workers_the_order_stands() -> None:
    places = play([waiting("a"), waiting("b", priority=9)], [])
    assert {job: place.position for job, place in places.items()} == {"b": 1, "a": 2}


def test_what_has_ended_counts_no_longer_for_its_project() -> None:
    jobs = [waiting("older", project="q"), waiting("younger", project="p")]
    places = play(jobs, [Slot(CPU, 5.0, "p"), Slot(CPU, 100.0, "q")])
    assert starts(places) == {"younger": 5.0, "older": 15.0}
