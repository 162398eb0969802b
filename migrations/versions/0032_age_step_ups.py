"""How old the authentication may be that a step-up asks for.

Phase: expand. The release before asks for one of now, which is what the default says.
"""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "session_stands", sa.Column("max_age", sa.Integer, nullable=False, server_default="0")
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_column("session_stands", "max_age")
