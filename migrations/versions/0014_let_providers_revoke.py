"""Which providers may have users logged out by Global Token Revocation; none by default.

Phase: expand. The release before has no such endpoint.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "providers",
        sa.Column("may_revoke", sa.Boolean(), nullable=False, server_default=sa.false()),
    )


def downgrade() -> None:
    """Take it away again."""
    op.drop_column("providers", "may_revoke")
