"""The issuer that the hub is served as, so that the command line beside it hands out its addresses.

Phase: expand. The release before leaves it alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("tenants", sa.Column("served_issuer", sa.String(1000)))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("tenants", "served_issuer")
