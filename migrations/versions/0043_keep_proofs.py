"""When a context of a session was proven before it was asked again: what is found since is new.

Phase: expand. The release before leaves it alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("session_stands", sa.Column("proven_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("session_stands", "proven_at")
