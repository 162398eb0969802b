"""How many SETs in a row a stream's endpoint refused.

Phase: expand. The release before goes on pushing where this one would pause.
"""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "streams", sa.Column("refused_in_row", sa.Integer, nullable=False, server_default="0")
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_column("streams", "refused_in_row")
