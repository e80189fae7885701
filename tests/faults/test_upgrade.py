"""A schema that is newer than a worker. Row 22."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from migrations import config, upgrade
from models import jobs, projects, webhook_deliveries, webhooks
from models.db import sync_engine, transaction
from models.state import TERMINAL, Status
from tests.faults.fleet import Fleet
from tests.faults.killing import LONG, assert_as_if_unbroken
from tests.faults.processes import Process

NEXT = '''
"""the next release's migration: it only adds"""

import sqlalchemy as sa
from alembic import op

revision = "next_release"
down_revision = {head!r}
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("jobs", sa.Column("region", sa.String(), nullable=True))
    op.add_column(
        "jobs", sa.Column("tier", sa.String(), nullable=False, server_default="standard")
    )
    op.create_table(
        "job_notes",
        sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("job_id", sa.String(), sa.ForeignKey("jobs.id")),
    )
    op.create_index("ix_jobs_region", "jobs", ["region"])


def downgrade():
    op.drop_table("job_notes")
    op.drop_column("jobs", "tier")
    op.drop_column("jobs", "region")
'''


@pytest.fixture
def next_release(fleet: Fleet, tmp_path: Path) -> Iterator[Config]:
    """Migrations with one more on top of the present head; taken back afterwards."""
    made = config(fleet.postgres.part.url)
    head = ScriptDirectory.from_config(made).get_current_head()
    (tmp_path / "next_release.py").write_text(NEXT.format(head=head))
    made.set_main_option("path_separator", "os")
    present = Path(made.get_main_option("script_location") or "") / "versions"
    made.set_main_option("version_locations", f"{present}:{tmp_path}")
    yield made
    for worker in fleet.alive("worker"):
        fleet.end(worker)
    command.downgrade(made, str(head))


@pytest.mark.faults
def test_an_old_worker_and_a_new_one_share_the_new_schema(
    fleet: Fleet, next_release: Config
) -> None:
    """Row 22: migrated under a running job; then both releases work, and hand jobs over."""
    fleet.unbroken_sha256(**LONG)
    old = fleet.worker()
    file_id = fleet.upload()
    under_way = fleet.submit(file_id, **LONG)
    fleet.wait_step(under_way, 1)
    command.upgrade(next_release, "next_release")
    fleet.wait_status(under_way, *TERMINAL)
    assert_as_if_unbroken(fleet, under_way, **LONG)
    assert len(fleet.attempts(under_way)) == 1

    new = fleet.start_worker(PYTHONPATH=str(Path(__file__).parent / "newer"))
    assert "this is the next release" in new.log.read_text()
    handed_over = _hand_over(fleet, file_id, giver=old, taker=new)
    back_again = _hand_over(fleet, file_id, giver=new, taker=fleet.start_worker())
    with fleet.engine.begin() as connection:
        regions = connection.exec_driver_sql(
            "SELECT id, region, tier FROM jobs WHERE id = ANY(%s)",
            ([under_way, handed_over, back_again],),
        )
        found = {row.id: (row.region, row.tier) for row in regions}
    assert found == {
        under_way: (None, "standard"),
        handed_over: ("north", "standard"),
        back_again: ("north", "standard"),
    }


def _hand_over(fleet: Fleet, file_id: str, *, giver: Process, taker: Process) -> str:
    """A job that one worker begins and, as on a deploy, another ends."""
    taker.signal(signal.SIGSTOP)
    job_id = fleet.submit(file_id, **LONG)
    fleet.wait_step(job_id, 1)
    taker.signal(signal.SIGCONT)
    assert fleet.end(giver) == 0
    fleet.wait_status(job_id, *TERMINAL)
    assert_as_if_unbroken(fleet, job_id, **LONG)
    assert [a["outcome"] for a in fleet.attempts(job_id)] == ["returned", "succeeded"]
    return job_id


def test_a_database_with_rows_is_brought_to_the_present_schema(fleet: Fleet) -> None:
    """Each migration on rows that the first release wrote."""
    with psycopg.connect(fleet.postgres.part.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE upgraded")
    url = fleet.postgres.part.url.replace("/postgres?", "/upgraded?")
    command.upgrade(config(url), "0001_main_job")
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO projects (id, name) VALUES ('proj-1', 'default')")
        connection.execute(
            "INSERT INTO files (id, project_id, filename, purpose, bytes, sha256, storage_key,"
            " status) VALUES ('file-1', 'proj-1', 'a.csv', 'fine-tune', 1, 'x', 'k', 'processed')"
        )
        connection.execute(
            "INSERT INTO jobs (id, project_id, status, desired, stop_mode, fence, attempts,"
            " failures, failures_without_progress, request, model, training_file_id, seed,"
            " priority, requires, result_files) VALUES ('ftjob-1', 'proj-1', 'queued', 'run',"
            " 'save', 0, 0, 0, 0, '{}', 'tiny', 'file-1', 1, 0, '{}', '[]')"
        )
    command.upgrade(config(url), "0010_predictions")
    with psycopg.connect(url) as connection:
        _old_webhook(connection, "wh_1")
    upgrade(url)
    with psycopg.connect(url) as connection:
        _old_webhook(connection, "wh_2")
    engine = sync_engine(url)
    with transaction(engine) as session:
        project = projects.ensure(session, "default")
        job = jobs.get(session, project.id, "ftjob-1")
        assert job.status == Status.QUEUED
        assert job.origin is None
        before, after = webhooks.listing(session, project.id, after=None, limit=2).rows[::-1]
        assert before.updated_at == before.rotated_at > before.created_at
        assert after.updated_at > before.updated_at
        assert (after.name, after.event_types) == ("mine", ["*"])
        for old in ("msg_wh_1", "msg_wh_2"):
            assert webhook_deliveries.get(session, old).sample is False
    engine.dispose()


def _old_webhook(connection: psycopg.Connection, webhook_id: str) -> None:
    """An endpoint and a delivery, as what came before `0011_webhook_endpoints` writes them."""
    connection.execute(
        "INSERT INTO webhooks (id, project_id, url, events, description, status, generation, fence,"
        " created_at, rotated_at) VALUES (%s, 'proj-1', 'https://example.com/', '{*}', 'mine',"
        " 'enabled', 2, 0, now() - interval '2 days', now() - interval '1 day')",
        (webhook_id,),
    )
    connection.execute(
        "INSERT INTO webhook_deliveries (id, webhook_id, event_id, type, data, status, attempts)"
        " VALUES (%s, %s, 'evt_1', 'fine_tuning.job.queued', '{}', 'pending', 0)",
        (f"msg_{webhook_id}", webhook_id),
    )
