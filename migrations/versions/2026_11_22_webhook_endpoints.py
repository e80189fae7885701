"""webhook endpoints: when a call changed them last; deliveries of samples

Revision: 0011_webhook_endpoints, after 0010_predictions
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0011_webhook_endpoints'
down_revision = '0010_predictions'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        'webhooks',
        sa.Column(
            'updated_at', sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
    )
    op.execute('UPDATE webhooks SET updated_at = greatest(created_at, rotated_at)')
    op.add_column(
        'webhook_deliveries',
        sa.Column('sample', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    )


def downgrade() -> None:
    op.drop_column('webhook_deliveries', 'sample')
    op.drop_column('webhooks', 'updated_at')
