"""What a step-up asks for besides its class, and what was shown where it was passed.

Phase: expand. The release before leaves the columns alone: null is nothing.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None

COLUMNS = ("amr_any_of", "shown_acr", "shown_amr")


def upgrade() -> None:
    """Add the columns."""
    for name in COLUMNS:
        document = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
        op.add_column("session_stands", sa.Column(name, document))


def downgrade() -> None:
    """Drop them."""
    for name in COLUMNS:
        op.drop_column("session_stands", name)
