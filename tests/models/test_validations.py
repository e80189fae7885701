"""Which reports are kept."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select, update

from models import validation_leases, validations
from models.data_spec import ValidationRequest
from models.db import Engine, transaction
from models.files import File
from models.jobs import Job
from models.validations import Validation
from tests.rows import make_file, make_job, make_project, validated


def test_old_reports_go_unless_a_job_or_a_file_tells_them(engine: Engine) -> None:
    project = make_project(engine)

    def asked(*, file_stays: bool) -> str:
        file_id = make_file(engine, project, status="uploaded")
        with transaction(engine) as session:
            row = validations.create(session, project, ValidationRequest(training_file=file_id))
            held = validation_leases.claim(session, "control", 30, row.id)
            assert held is not None
            validation_leases.fail(
                session, row.id, held.fence, {"code": "no_rows", "message": "no row is left"}
            )
            deleted = None if file_stays else func.now()
            session.execute(update(File).where(File.id == file_id).values(deleted_at=deleted))
            return row.id

    of_file, of_nobody = asked(file_stays=True), asked(file_stays=False)
    job_id = make_job(engine, project, queued=False)
    validated(engine, job_id)
    with transaction(engine) as session:
        of_job = session.get_one(Job, job_id).validation_id
        session.execute(
            update(Validation)
            .where(Validation.project_id == project)
            .values(
                finished_at=func.now() - validations.REMEMBERED - timedelta(days=1),
                data_until=func.now() - timedelta(days=1),
            )
        )
    new = asked(file_stays=False)
    with transaction(engine) as session:
        validations.forget(session)
        kept = set(session.scalars(select(Validation.id).where(Validation.project_id == project)))
    assert kept >= {of_file, of_job, new}
    assert of_nobody not in kept
