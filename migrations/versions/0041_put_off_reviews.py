"""Reviews of sessions that failed are put off and tried again.

Phase: expand. The release before tries nothing again, and takes reviews that are put off at once.
"""

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column(
        "session_reviews",
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    )
    op.add_column("session_reviews", sa.Column("due_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("session_reviews", "due_at")
    op.drop_column("session_reviews", "attempts")
