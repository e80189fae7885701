"""predictions: models tried on one input

Revision: 0010_predictions, after 0009_telemetry
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0010_predictions'
down_revision = '0009_telemetry'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'predictions',
        sa.Column('id', sa.String(), nullable=False),
        sa.Column('project_id', sa.String(), nullable=False),
        sa.Column('model_id', sa.String(), nullable=False),
        sa.Column('request', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column('status', sa.String(), nullable=False),
        sa.Column('fence', sa.BigInteger(), nullable=False),
        sa.Column('tries', sa.Integer(), nullable=False),
        sa.Column('lease_expires_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('output', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column('error', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_predictions_project_id')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_predictions')),
    )
    op.create_index('ix_predictions_created_at', 'predictions', ['created_at'], unique=False)
    op.create_index(
        'ix_predictions_pending', 'predictions', ['id'], unique=False,
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )


def downgrade() -> None:
    op.drop_index('ix_predictions_pending', table_name='predictions')
    op.drop_index('ix_predictions_created_at', table_name='predictions')
    op.drop_table('predictions')
