"""Feeds of IP metadata: which files are read, and how.

Phase: expand. The release before knows nothing of addresses.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "feeds",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("feed_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "feed_id", name="pk_feeds"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_feeds_tenant_id_name"),
    )


def downgrade() -> None:
    """Drop it; feeds have to be set up again."""
    op.drop_table("feeds")
