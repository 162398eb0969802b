"""How often a stream's delivery was changed: what an earlier endpoint answers is not of this one.

Phase: expand. The release before leaves it as it is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    column = sa.Column("delivery_epoch", sa.Integer, nullable=False, server_default="0")
    op.add_column("streams", column)


def downgrade() -> None:
    """Drop it."""
    op.drop_column("streams", "delivery_epoch")
