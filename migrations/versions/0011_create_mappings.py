"""What event types mean for risk, as each tenant wants it.

Phase: expand. The release before knows the shipped meanings only.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
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
        "mappings",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("mapping_id", sa.String(64), nullable=False),
        sa.Column("event_type", sa.String(512), nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "mapping_id", name="pk_mappings"),
        sa.UniqueConstraint("tenant_id", "event_type", name="uq_mappings_tenant_id_event_type"),
    )


def downgrade() -> None:
    """Drop it: the shipped meanings apply again."""
    op.drop_table("mappings")
