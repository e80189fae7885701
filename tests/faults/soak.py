"""Random faults over a mix of jobs for as long as is asked, then every promise is checked.

`python -m tests.faults.soak --minutes 30 [--seed S]`, or `make soak MINUTES=30 SEED=S`. The seed
draws the jobs, the faults and the pauses between them; it is printed, and given again it repeats
them. Exits with 1 if anything that was promised did not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from models.leases import CRASHES, POISON_AFTER
from models.state import TERMINAL
from tests.faults import invariants
from tests.faults.fleet import Fleet, running_fleet
from tests.faults.mayhem import Mayhem
from tests.faults.processes import wait_for
from tests.training.causal import tiny_llama
from tests.training.material import tiny_bert

WORKERS = 2
IN_FLIGHT = 4
LONGEST_PAUSE_SECONDS = 5.0
END_SECONDS = 900.0
"""For the jobs under way to end once nothing disturbs them any more."""
CANCELLED, PAUSED = 0.1, 0.15
"""Shares of the jobs whose users change their mind."""

Body = dict[str, Any]


def chats(rows: int = 32) -> bytes:
    def row(number: int) -> Body:
        return {
            "messages": [
                {"role": "user", "content": f"{number} and {number % 7}?"},
                {"role": "assistant", "content": f"{number + number % 7}."},
            ]
        }

    return "\n".join(json.dumps(row(number)) for number in range(rows)).encode()


@dataclass
class Asked:
    """A job that was accepted, and what its user wants of it."""

    id: str
    kind: str
    wish: str
    """`run`, `cancel` or `pause`."""
    at_step: int
    """From which step on the wish is spoken."""
    spoken: bool = False


@dataclass
class Traffic:
    """Users: they keep some jobs in flight, and some of them pause, resume or cancel."""

    fleet: Fleet
    rng: random.Random
    kinds: dict[str, Body] = field(default_factory=dict)
    unbroken: dict[str, str] = field(default_factory=dict)
    jobs: list[Asked] = field(default_factory=list)
    over: dict[str, Body] = field(default_factory=dict)
    """The last answer for each job that has ended."""

    def begin(self) -> None:
        """What each kind of job leads to when nothing disturbs it."""
        reviews = self.fleet.upload(96)
        held_out = self.fleet.upload(24, "held-out.csv")
        talk = self._upload("chats.jsonl", chats())
        steps = {"batch_size": 4, "max_steps": 600, "checkpoint_every": 30}
        self.kinds = {
            "classification": _body("tiny", reviews, steps),
            "classification, accumulated and evaluated": _body(
                "tiny",
                reviews,
                steps | {"batch_size": 6, "micro_batch_size": 4, "eval_every": 50},
                validation_file=held_out,
            ),
            "classification, LoRA": _body("tiny", reviews, steps, tuning="lora"),
            "chat": _body("llama", talk, steps | {"max_steps": 300}),
        }
        for kind, body in self.kinds.items():
            job_id = self._submit(body)
            job = self.fleet.wait_status(job_id, *TERMINAL)
            assert job["status"] == "succeeded", job["error"]
            self.unbroken[kind] = self.fleet.weights_sha256(job_id)

    def tick(self) -> None:
        """See what has ended, speak the wishes that are due, submit what is missing."""
        for asked in self._waiting():
            job = self.fleet.job(asked.id)
            if job["status"] in TERMINAL:
                self.over[asked.id] = job
            elif asked.wish != "run" and not asked.spoken:
                self._speak(asked, (job["progress"] or {}).get("step", 0))
            elif job["status"] == "paused":
                self._ask(asked, "resume")
        while len(self._waiting()) < IN_FLIGHT:
            kind = self.rng.choice(list(self.kinds))
            wish = self.rng.choices(
                ["cancel", "pause", "run"], [CANCELLED, PAUSED, 1 - CANCELLED - PAUSED]
            )[0]
            at_step = self.rng.randrange(300)
            self.jobs.append(Asked(self._submit(self.kinds[kind]), kind, wish, at_step))

    def finish(self, seconds: float) -> None:
        """Wait until every job has ended by itself."""

        def all_over() -> bool:
            for asked in self._waiting():
                job = self.fleet.job(asked.id)
                if job["status"] in TERMINAL:
                    self.over[asked.id] = job
                elif job["status"] == "paused":
                    self._ask(asked, "resume")
            return not self._waiting()

        wait_for("every job has ended", all_over, seconds)

    def violations(self) -> Iterator[str]:
        """What became of a job against what its user wanted."""
        for asked in self.jobs:
            job = self.over.get(asked.id)
            if job is None:
                yield f"{asked.id} has not ended"
            elif job["status"] == "succeeded":
                if self.fleet.weights_sha256(asked.id) != self.unbroken[asked.kind]:
                    yield f"{asked.id} ({asked.kind}): not the weights of an undisturbed run"
            elif job["status"] == "cancelled":
                if asked.wish != "cancel":
                    yield f"{asked.id}: cancelled, and nobody asked for it"
            elif not _rightly_poison(job):
                tried = [(a["outcome"], a["resumed_from_step"]) for a in job["attempts"]]
                yield f"{asked.id}: failed with {job['error']} after {tried}"
        listed = {job["id"] for job in self._all_jobs()}
        kept = {asked.id for asked in self.jobs}
        if len(listed) != len(kept) + len(self.kinds) or not kept <= listed:
            yield f"{len(self.jobs) + len(self.kinds)} jobs were accepted, {len(listed)} exist"

    def _waiting(self) -> list[Asked]:
        return [asked for asked in self.jobs if asked.id not in self.over]

    def _speak(self, asked: Asked, step: int) -> None:
        if step >= asked.at_step:
            asked.spoken = self._ask(asked, asked.wish)

    def _ask(self, asked: Asked, what: str) -> bool:
        """Whether the call was answered; a refusal because the job has ended is an answer."""
        try:
            return not self.fleet.ask(asked.id, what).is_server_error
        except httpx.TransportError:
            return False

    def _submit(self, body: Body) -> str:
        """Repeated under one key until it is answered."""
        key = f"soak-{self.rng.getrandbits(64):x}"
        answer = self._answered("/fine_tuning/jobs", json=body, headers={"Idempotency-Key": key})
        return str(answer["id"])

    def _upload(self, name: str, content: bytes) -> str:
        form = {"purpose": "fine-tune"}
        answer = self._answered("/files", data=form, files={"file": (name, content)})
        return str(answer["id"])

    def _answered(self, path: str, **request: Any) -> Body:
        def post() -> httpx.Response | None:
            try:
                answer = self.fleet.http.post(path, **request)
            except httpx.TransportError:
                return None
            return None if answer.is_server_error or answer.status_code == 409 else answer

        answer = wait_for(f"an answer to POST {path}", post, 180)
        answer.raise_for_status()
        found: Body = answer.json()
        return found

    def _all_jobs(self) -> Iterator[Body]:
        after: dict[str, str] = {}
        while True:
            page = self.fleet.get("/fine_tuning/jobs", limit=100, **after)
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}


def _body(model: str, file_id: str, hyperparameters: Body, **members: Any) -> Body:
    return {
        "model": model,
        "training_file": file_id,
        "seed": 1,
        "hyperparameters": hyperparameters,
        **members,
    }


def _rightly_poison(job: Body) -> bool:
    """Whether it is called poison, after as many crashes in a row from one checkpoint."""
    crashes = [attempt for attempt in job["attempts"] if attempt["outcome"] in CRASHES]
    last = crashes[-POISON_AFTER:]
    # One that dies before it has begun has nothing to begin from.
    begun_from = {attempt["resumed_from_step"] for attempt in last} - {None}
    code = job["error"]["code"]
    return code == "poison" and len(last) == POISON_AFTER and len(begun_from) <= 1


def soak(folder: Path, minutes: float, seed: int) -> int:
    """The number of violations, each printed."""
    rng = random.Random(seed)
    models = {"tiny": tiny_bert(folder / "tiny"), "llama": tiny_llama(folder / "llama")}
    registered = json.dumps({name: str(path) for name, path in models.items()})
    with running_fleet(
        folder / "fleet",
        models["tiny"],
        LUTHIER_BASE_MODELS=registered,
        LUTHIER_MAX_FAILURES="1000",
    ) as fleet:
        fleet.mend()
        mayhem = Mayhem(fleet, rng, WORKERS)
        mayhem.begin()
        traffic = Traffic(fleet, rng)
        traffic.begin()
        began = time.monotonic()
        while time.monotonic() - began < minutes * 60:
            traffic.tick()
            name = mayhem.strike()
            if name is not None:
                _say(f"{time.monotonic() - began:7.1f} s  {name}")
            mayhem.pause(LONGEST_PAUSE_SECONDS)
        _say("no more faults; the jobs under way come to their end")
        mayhem.mend()
        traffic.finish(END_SECONDS)
        found = [*traffic.violations(), *invariants.check(fleet)]
        _report(traffic, mayhem, (time.monotonic() - began) / 60, seed, found)
        if found:
            kept = Path(tempfile.mkdtemp(prefix="luthier-soak-"))
            for log in (folder / "fleet").glob("*.log"):
                shutil.copy(log, kept)
            _say(f"the processes' logs: {kept}")
    return len(found)


def _report(
    traffic: Traffic, mayhem: Mayhem, minutes: float, seed: int, violations: list[str]
) -> None:
    attempts = [a for job in traffic.over.values() for a in job["attempts"]]
    kills = sum(count for name, count in mayhem.done.items() if name.startswith("kill"))
    _say(f"\nseed {seed}, {minutes:.0f} minutes\n")
    for name, count in mayhem.done.most_common():
        _say(f"| {name} | {count} |")
    _say(f"| **faults in all** | {mayhem.done.total()} |")
    _say(f"| of these kill -9 | {kills} |")
    for status, count in Counter(job["status"] for job in traffic.over.values()).most_common():
        _say(f"| jobs {status} | {count} |")
    for outcome, count in Counter(str(a["outcome"]) for a in attempts).most_common():
        _say(f"| attempts ended as {outcome} | {count} |")
    _say(f"| **violations** | {len(violations)} |")
    for violation in violations:
        _say(f"VIOLATION: {violation}")


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    seed = random.randrange(2**32) if asked.seed is None else asked.seed
    _say(f"to repeat: make soak MINUTES={asked.minutes:g} SEED={seed}")
    with tempfile.TemporaryDirectory(prefix="luthier-soak-") as folder:
        sys.exit(1 if soak(Path(folder), asked.minutes, seed) else 0)


if __name__ == "__main__":
    main()
