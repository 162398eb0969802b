"""Keeps rules over attributes, for questions in AuthZEN.

Phase: expand.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "attribute_rules",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("rule_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("resource_types", DOCUMENT, nullable=False),
        sa.Column("effect", sa.String(8), nullable=False),
        sa.Column("expression", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "rule_id", name="pk_attribute_rules"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_attribute_rules_tenant_id_name"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("attribute_rules")
