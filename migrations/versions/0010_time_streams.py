"""Remember when the receiver of a stream was active.

Phase: expand. The release before pauses no stream for silence and ignores the column.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what is not known begins to be timed when a time-out is set."""
    op.add_column("streams", sa.Column("active_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("streams", "active_at")
