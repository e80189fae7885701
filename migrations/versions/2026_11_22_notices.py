"""notices: who follows a job is told when something of it is written

Revision: 0005_notices, after 0004_validations
"""

from __future__ import annotations

from alembic import op

revision = '0005_notices'
down_revision = '0004_validations'
branch_labels = None
depends_on = None

TABLES = {"jobs": ("INSERT OR UPDATE", "id"), "job_events": ("INSERT", "job_id")}


def upgrade() -> None:
    for table, (events, column) in TABLES.items():
        op.execute(
            f"CREATE FUNCTION notify_of_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"PERFORM pg_notify('luthier_jobs', NEW.{column}); RETURN NULL; END $$"
        )
        op.execute(
            f"CREATE TRIGGER notify_of_{table} AFTER {events} ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION notify_of_{table}()"
        )


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TRIGGER notify_of_{table} ON {table}")
        op.execute(f"DROP FUNCTION notify_of_{table}()")
