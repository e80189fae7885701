"""telemetry: how long each claim had waited, and the trace that a job's submit began

Revision: 0009_telemetry, after 0008_webhooks
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0009_telemetry'
down_revision = '0008_webhooks'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('job_attempts', sa.Column('waited_seconds', sa.Float(), nullable=True))
    op.add_column('jobs', sa.Column('traceparent', sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column('jobs', 'traceparent')
    op.drop_column('job_attempts', 'waited_seconds')
