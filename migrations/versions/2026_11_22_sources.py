"""files whose bytes come from elsewhere than an upload

Revision: 0006_sources, after 0005_notices
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0006_sources'
down_revision = '0005_notices'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('files', sa.Column('source', sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column('files', 'source')
