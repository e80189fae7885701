"""estimates: how long a job takes, before it runs and while it does, and what came of past ones

Revision: 0007_estimates, after 0006_sources
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0007_estimates'
down_revision = '0006_sources'
branch_labels = None
depends_on = None

COLUMNS = {
    'estimated_finish': sa.DateTime(timezone=True),
    'speed': postgresql.JSONB(astext_type=sa.Text()),
    'peak_memory_bytes': sa.BigInteger(),
    'environment': postgresql.JSONB(astext_type=sa.Text()),
    'predicted': postgresql.JSONB(astext_type=sa.Text()),
    'cloned_from': sa.String(),
}


def upgrade() -> None:
    for name, type_ in COLUMNS.items():
        op.add_column('jobs', sa.Column(name, type_, nullable=True))
    op.create_table(
        'past_runs',
        sa.Column('job_id', sa.String(), nullable=False),
        sa.Column('task', sa.String(), nullable=False),
        sa.Column('model', sa.String(), nullable=False),
        sa.Column('tuning', sa.String(), nullable=False),
        sa.Column('device', sa.String(), nullable=False),
        sa.Column('figures', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column('seconds', sa.Float(), nullable=False),
        sa.Column('predicted_seconds', sa.Float(), nullable=True),
        sa.Column('peak_memory_bytes', sa.BigInteger(), nullable=True),
        sa.Column('predicted_memory_bytes', sa.BigInteger(), nullable=True),
        sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_past_runs_job_id')),
        sa.PrimaryKeyConstraint('job_id', name=op.f('pk_past_runs')),
    )
    op.create_index('ix_past_runs_task_created_at', 'past_runs', ['task', 'created_at'], unique=False)
    op.create_table(
        'metric_outlines',
        sa.Column('job_id', sa.String(), nullable=False),
        sa.Column('split', sa.String(), nullable=False),
        sa.Column('name', sa.String(), nullable=False),
        sa.Column('last_step', sa.Integer(), nullable=False),
        sa.Column('steps', sa.LargeBinary(), nullable=False),
        sa.Column('values', sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_metric_outlines_job_id')),
        sa.PrimaryKeyConstraint('job_id', 'split', 'name', 'last_step', name=op.f('pk_metric_outlines')),
    )
    # Packed numbers do not compress; trying to costs at every write and read.
    for column in ('steps', 'values'):
        op.execute(f'ALTER TABLE metric_outlines ALTER COLUMN "{column}" SET STORAGE EXTERNAL')


def downgrade() -> None:
    op.drop_table('metric_outlines')
    op.drop_index('ix_past_runs_task_created_at', table_name='past_runs')
    op.drop_table('past_runs')
    for name in reversed(COLUMNS):
        op.drop_column('jobs', name)
