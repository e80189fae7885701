"""What cleaning may take while others write: each test is one order of two transactions."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from models import files, removal, validation_leases, validations
from models.data_spec import ValidationRequest
from models.db import Engine, transaction
from models.files import File
from models.validations import Validation
from tests.rows import make_file, make_project

LIFE_SECONDS = 1.5


def test_what_is_asked_for_as_a_file_expires_keeps_the_bytes(engine: Engine) -> None:
    """A call reads the file, the file expires, cleaning waits for its row, the call commits."""
    project = make_project(engine)
    file_id = make_file(engine, project)
    with transaction(engine) as session:
        expires = func.now() + timedelta(seconds=LIFE_SECONDS)
        session.execute(update(File).where(File.id == file_id).values(expires_at=expires))

    def release() -> str | None:
        with transaction(engine) as session:
            return removal.release_bytes(session, file_id)

    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as session:
            files.get(session, project, file_id, to_refer=True)
            time.sleep(2 * LIFE_SECONDS)
            released = pool.submit(release)
            with pytest.raises(TimeoutError):
                released.result(timeout=LIFE_SECONDS)
            row = validations.create(session, project, ValidationRequest(training_file=file_id))
        assert released.result(30) is None
    with transaction(engine) as session:
        assert session.get_one(Validation, row.id).status == "queued"
        assert session.get_one(File, file_id).removed_at is None


def test_what_is_prepared_while_its_file_is_deleted_is_not_kept(engine: Engine) -> None:
    """The file is deleted, its check ends before that is committed, then it is."""
    project = make_project(engine)
    file_id = make_file(engine, project, status="uploaded")
    with transaction(engine) as session:
        asked = ValidationRequest(training_file=file_id)
        row = validations.create(session, project, asked)
        held = validation_leases.claim(session, "control-a", 30, row.id)
        assert held is not None

    def succeed() -> None:
        with transaction(engine) as session:
            found = {"task": "fill-mask", "training": {}, "train_key": "datasets/x"}
            validation_leases.succeed(session, held.id, held.fence, keep_seconds=7e5, **found)

    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as session:
            files.delete(session, project, file_id)
            ending = pool.submit(succeed)
            time.sleep(LIFE_SECONDS)
            validations.release(session, file_id)
        ending.result(30)
    with transaction(engine) as session:
        most = func.now() + timedelta(seconds=validation_leases.GONE_DATA_SECONDS)
        kept = select(Validation.id).where(Validation.id == row.id, Validation.data_until <= most)
        assert session.scalar(kept) == row.id
