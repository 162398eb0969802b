"""Filters of streams: members of events and their good values.

Phase: expand. The release before sends what a filter would hold back.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


def upgrade() -> None:
    """Add the column."""
    op.add_column("streams", sa.Column("filters", DOCUMENT, nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("streams", "filters")
