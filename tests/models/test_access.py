"""Keys, tenancy, idempotent calls, and what cleaning may take."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from core.errors import NotFound, Unprocessable
from models import files, idempotency, jobs, keys, removal
from models.db import Engine, transaction
from models.files import File
from tests.rows import claim, make_file, make_job, make_project

SECRET = b"a secret of the tests"


def test_a_key_is_stored_only_as_its_digest(engine: Engine) -> None:
    with transaction(engine) as session:
        row, key = keys.create(session, SECRET, project="keys", name="ci")
        stored = session.execute(text("SELECT * FROM api_keys WHERE id = :id"), {"id": row.id})
        assert key not in str(stored.one())
    with transaction(engine) as session:
        found = keys.authenticate(session, SECRET, key)
        assert found is not None
        assert found.project_id == row.project_id
        assert keys.authenticate(session, b"another secret", key) is None
        assert keys.authenticate(session, SECRET, key + "x") is None


def test_expired_and_revoked_keys_are_refused(engine: Engine) -> None:
    with transaction(engine) as session:
        _, short = keys.create(
            session, SECRET, project="keys", name="short", lifetime=timedelta(milliseconds=10)
        )
        row, revoked = keys.create(session, SECRET, project="keys", name="revoked")
    time.sleep(0.03)
    with transaction(engine) as session:
        assert keys.revoke(session, row.id)
        assert not keys.revoke(session, row.id)
        assert keys.authenticate(session, SECRET, short) is None
        assert keys.authenticate(session, SECRET, revoked) is None


def test_rows_of_another_project_do_not_exist(engine: Engine) -> None:
    mine, theirs = make_project(engine, "mine"), make_project(engine, "theirs")
    file_id, job_id = make_file(engine, theirs), make_job(engine, theirs)
    with transaction(engine) as session:
        with pytest.raises(NotFound):
            files.get(session, mine, file_id)
        with pytest.raises(NotFound):
            jobs.get(session, mine, job_id)
        assert jobs.listing(session, mine, metadata={}, after=None, limit=9).rows == []


def test_jobs_are_found_by_metadata_and_paged_by_cursor(engine: Engine) -> None:
    project = make_project(engine, "paged")
    made = [make_job(engine, project, labels={"n": str(i % 2), "all": "x"}) for i in range(5)]
    with transaction(engine) as session:
        first = jobs.listing(session, project, metadata={"all": "x"}, after=None, limit=2)
        assert ([job.id for job in first.rows], first.has_more) == ([made[4], made[3]], True)
        rest = jobs.listing(session, project, metadata={}, after=made[3], limit=10)
        assert ([job.id for job in rest.rows], rest.has_more) == (made[2::-1], False)
        odd = jobs.listing(session, project, metadata={"n": "1"}, after=None, limit=10)
        assert [job.id for job in odd.rows] == [made[3], made[1]]


def test_equal_calls_wait_for_the_first_and_give_its_answer(engine: Engine) -> None:
    project = make_project(engine, "idempotent")
    print_ = idempotency.fingerprint("key", "POST /jobs", b"{}")
    made: list[str] = []
    answers: list[str] = []

    def call() -> None:
        with transaction(engine) as session:
            known = idempotency.recall(
                session, project, key="K", fingerprint=print_, is_retry=False
            )
            if known is None:
                known = f"job-{threading.get_ident()}"
                made.append(known)
                time.sleep(0.05)
                idempotency.remember(session, project, key="K", fingerprint=print_, result_id=known)
            answers.append(known)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert answers == made * 6


def test_a_key_with_another_body_is_refused(engine: Engine) -> None:
    project = make_project(engine, "idempotent")
    one, other = (idempotency.fingerprint("key", "r", body) for body in (b"1", b"2"))
    with transaction(engine) as session:
        idempotency.remember(session, project, key="reused", fingerprint=one, result_id="job-1")
    with pytest.raises(Unprocessable, match="new key"), transaction(engine) as session:
        idempotency.recall(session, project, key="reused", fingerprint=other, is_retry=False)


def test_only_a_retry_without_a_key_repeats_the_first_answer(engine: Engine) -> None:
    project = make_project(engine, "retries")
    print_ = idempotency.fingerprint("key", "r", b"body")
    with transaction(engine) as session:
        idempotency.remember(session, project, key=None, fingerprint=print_, result_id="job-1")
    for is_retry, expected in [(True, "job-1"), (False, None)]:
        with transaction(engine) as session:
            found = idempotency.recall(
                session, project, key=None, fingerprint=print_, is_retry=is_retry
            )
        assert found == expected


def test_bytes_of_a_deleted_file_stay_while_a_job_needs_them(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(text("UPDATE jobs SET status = 'cancelled'"))
    project = make_project(engine, "cleaning")
    file_id = make_file(engine, project)
    job_id = make_job(engine, project, training_file_id=file_id)
    with transaction(engine) as session:
        files.delete(session, project, file_id)
        assert removal.files_due(session) == []
        assert removal.release_bytes(session, file_id) is None
    job = claim(engine)
    assert job.id == job_id
    with transaction(engine) as session:
        session.execute(text("UPDATE jobs SET status = 'succeeded'"))
    with transaction(engine) as session:
        assert removal.files_due(session) == [file_id]
        key = session.scalar(select(File.storage_key).where(File.id == file_id))
        assert removal.release_bytes(session, file_id) == key
    with transaction(engine) as session:
        assert removal.files_due(session) == []
        assert removal.release_bytes(session, file_id) is None
