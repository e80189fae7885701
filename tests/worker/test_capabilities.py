"""Which worker may take which job, by what both say of GPUs."""

from __future__ import annotations

import pytest

from api.submission import requires
from models.spec import Resources
from worker.main import _capabilities


@pytest.mark.parametrize(("asked", "least"), [(None, 0), (1, 1), (2, 2), (4, 4)])
def test_a_job_of_several_gpus_waits_for_a_worker_that_has_them(
    asked: int | None, least: int
) -> None:
    wanted = set(requires(Resources(gpus=asked)))
    for gpus in range(5):
        ready = {"device": "cuda" if gpus else "cpu", "gpus": gpus}
        assert (wanted <= set(_capabilities(ready))) is (gpus >= least), gpus
