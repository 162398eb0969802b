"""The status with which an admin stopped a stream.

Phase: expand. The release before lets receivers enable such streams.
"""

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("streams", sa.Column("stopped_as", sa.String(16)))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("streams", "stopped_as")
