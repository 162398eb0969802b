"""Attempts of a SET while its stream takes others: an outage of the receiver costs none its life.

Phase: expand. The release before leaves it at zero.
"""

import sqlalchemy as sa
from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    column = sa.Column("lone_attempts", sa.Integer, nullable=False, server_default="0")
    op.add_column("deliveries", column)


def downgrade() -> None:
    """Drop it."""
    op.drop_column("deliveries", "lone_attempts")
