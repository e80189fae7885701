"""What a job's events say of an attempt that broke, for its user to read."""

from __future__ import annotations

import pytest

from core.errors import LuthierError
from core.storage import ObjectCorrupt, ObjectMissing, StorageUnavailable
from worker.supervisor import _told

INTERNALS = "jobs/ftjob-1/x at http://10.0.0.7:9000/bucket, /srv/luthier/storage"


@pytest.mark.parametrize("kind", [StorageUnavailable, ObjectMissing, ObjectCorrupt])
def test_nothing_of_where_the_store_is(kind: type[LuthierError]) -> None:
    code, reason = _told(kind(f"The object storage failed on {INTERNALS}"))
    assert code == kind.code
    assert "object storage" in reason
    for word in ("ftjob", "10.0.0.7", "/srv"):
        assert word not in reason


def test_what_the_user_can_mend_is_told_whole() -> None:
    error = LuthierError("The base model is away.", code="model_unavailable", hint="Wait.")
    assert _told(error) == ("model_unavailable", "The base model is away. Wait.")
