"""validations as things of their own

Revision: 0004_validations, after 0003_uploads
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0004_validations'
down_revision = '0003_uploads'
branch_labels = None
depends_on = None

JSONB = postgresql.JSONB(astext_type=sa.Text())
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        'validations',
        sa.Column('id', sa.String(), nullable=False),
        sa.Column('project_id', sa.String(), nullable=False),
        sa.Column('status', sa.String(), nullable=False),
        sa.Column('automatic', sa.Boolean(), nullable=False),
        sa.Column('fence', sa.BigInteger(), nullable=False),
        sa.Column('worker_id', sa.String(), nullable=True),
        sa.Column('lease_expires_at', MOMENT, nullable=True),
        sa.Column('tries', sa.Integer(), nullable=False),
        sa.Column('failures', sa.Integer(), nullable=False),
        sa.Column('not_before', MOMENT, nullable=True),
        sa.Column('request', JSONB, nullable=False),
        sa.Column('training_file_id', sa.String(), nullable=False),
        sa.Column('validation_file_id', sa.String(), nullable=True),
        sa.Column('asked_task', sa.String(), nullable=True),
        sa.Column('digest', sa.String(), nullable=True),
        sa.Column('task', sa.String(), nullable=True),
        sa.Column('training', JSONB, nullable=True),
        sa.Column('validation', JSONB, nullable=True),
        sa.Column('train_key', sa.String(), nullable=True),
        sa.Column('valid_key', sa.String(), nullable=True),
        sa.Column('data_until', MOMENT, nullable=True),
        sa.Column('error', JSONB, nullable=True),
        sa.Column('started_at', MOMENT, nullable=True),
        sa.Column('finished_at', MOMENT, nullable=True),
        sa.Column('created_at', MOMENT, server_default=sa.text('now()'), nullable=False),
        sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_validations_project_id')),
        sa.ForeignKeyConstraint(['training_file_id'], ['files.id'], name=op.f('fk_validations_training_file_id')),
        sa.ForeignKeyConstraint(['validation_file_id'], ['files.id'], name=op.f('fk_validations_validation_file_id')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_validations')),
    )
    op.create_index('ix_validations_project_id_id', 'validations', ['project_id', 'id'])
    op.create_index('ix_validations_project_id_digest', 'validations', ['project_id', 'digest'])
    op.create_index('ix_validations_training_file_id', 'validations', ['training_file_id'])
    op.create_index('ix_validations_validation_file_id', 'validations', ['validation_file_id'])
    op.create_index(
        'ix_validations_pending',
        'validations',
        ['automatic', 'id'],
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.add_column('files', sa.Column('validation_id', sa.String(), nullable=True))
    op.add_column('jobs', sa.Column('validation_id', sa.String(), nullable=True))
    # Not checked against the rows there are, which all hold none: that would read the whole table.
    op.create_foreign_key(
        op.f('fk_jobs_validation_id'),
        'jobs',
        'validations',
        ['validation_id'],
        ['id'],
        postgresql_not_valid=True,
    )


def downgrade() -> None:
    op.drop_constraint(op.f('fk_jobs_validation_id'), 'jobs', type_='foreignkey')
    op.drop_column('jobs', 'validation_id')
    op.drop_column('files', 'validation_id')
    op.drop_table('validations')
