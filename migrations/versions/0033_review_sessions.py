"""Sessions that are judged without a request, and the posture of devices that providers report.

Phase: expand. The release before reports no posture and reviews no session.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "device_postures",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("value", sa.String(200), nullable=False),
        sa.Column("old", sa.String(200), nullable=False),
        sa.Column("first", sa.String(200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "device_id", "name", name="pk_device_postures"),
    )
    op.create_table(
        "session_reviews",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("review_id", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("iss", sa.String(1024), nullable=False),
        sa.Column("sid", sa.String(512), nullable=False),
        sa.Column("cause", sa.String(32), nullable=False),
        sa.Column("trace_id", sa.String(1024), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("old", JSON, nullable=False),
        sa.Column("new", JSON, nullable=False),
        sa.Column("context", JSON, nullable=False),
        sa.Column("told_by", sa.String(1024), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "review_id", name="pk_session_reviews"),
    )
    op.create_index("ix_session_reviews_at", "session_reviews", ["at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("session_reviews")
    op.drop_table("device_postures")
