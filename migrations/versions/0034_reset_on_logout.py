"""Tenants that take a finished universal logout for the end of all risk.

Phase: expand. The release before never resets, which is what the default says.
"""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "tenants",
        sa.Column(
            "reset_on_universal_logout", sa.Boolean, nullable=False, server_default=sa.false()
        ),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_column("tenants", "reset_on_universal_logout")
