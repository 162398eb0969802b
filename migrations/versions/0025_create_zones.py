"""Zones: named parts of the net, for policies and as blocklists.

Phase: expand. The release before knows no zones.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0024"
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
        "zones",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("zone_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "zone_id", name="pk_zones"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_zones_tenant_id_name"),
    )


def downgrade() -> None:
    """Drop it; all zones are lost."""
    op.drop_table("zones")
