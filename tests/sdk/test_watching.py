"""Watching through servers that do not stream as they should."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import openai
import pytest
import uvicorn
from fastapi import FastAPI, Response
from luthier import Luthier

JOB = '{"id": "ftjob-1", "object": "fine_tuning.job", "status": "running"}'
ENDED = JOB.replace("running", "succeeded")


@contextmanager
def answering(answers: list[Response]) -> Iterator[tuple[Luthier, list[float]]]:
    """A client of a server that gives these answers in turn, the last one from then on; and when
    it was asked."""
    app = FastAPI()
    asked: list[float] = []

    @app.get("/v1/fine_tuning/jobs/ftjob-1/events")
    def events() -> Response:
        asked.append(time.monotonic())
        return answers[min(len(asked), len(answers)) - 1]

    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield Luthier(base_url=f"http://127.0.0.1:{port}/v1", api_key="k"), asked
    finally:
        running.should_exit = True
        thread.join(10)


def stream(*messages: tuple[str, str]) -> Response:
    text = "".join(f"event: {name}\ndata: {data}\n\n" for name, data in messages)
    return Response(text, media_type="text/event-stream")


def test_a_server_that_does_not_stream_is_told_at_once() -> None:
    """An older release answers the list of events: nothing in it would ever end the watching."""
    answer = Response('{"object": "list", "data": []}', media_type="application/json")
    with (
        answering([answer]) as (client, asked),
        pytest.raises(openai.OpenAIError, match=r"application/json.*older"),
    ):
        list(client.fine_tuning.jobs.watch("ftjob-1"))
    assert len(asked) == 1


def test_a_stream_that_ends_early_is_not_asked_for_again_and_again_at_once() -> None:
    early, end = stream(("job", JOB)), stream(("job", ENDED), ("end", ENDED))
    with answering([early, early, early, end]) as (client, asked):
        updates = list(client.fine_tuning.jobs.watch("ftjob-1"))
    assert updates[-1].job.status == "succeeded"
    assert len(asked) == 4
    pauses = [after - before for before, after in pairwise(asked)]
    assert min(pauses) >= 0.5
