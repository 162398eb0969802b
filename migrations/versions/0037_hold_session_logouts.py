"""Logouts of sessions that wait for a person, and the apps that sessions are used for.

Phase: expand. The release before drops what it holds back, and knows apps of a session as long as
its process lives.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "session_apps",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("app_id", sa.String(200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "session_id", "app_id", name="pk_session_apps"),
    )
    op.create_index("ix_session_apps_at", "session_apps", ["at"])
    op.create_table(
        "held_session_logouts",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("held_id", sa.String(64), nullable=False),
        sa.Column("order_key", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("iss", sa.String(1024), nullable=False),
        sa.Column("sid", sa.String(512), nullable=False),
        sa.Column("context_key", sa.String(64), nullable=False),
        sa.Column("app_ids", JSON),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("trace_id", sa.String(1024), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True)),
        sa.Column("settled_by", sa.String(200)),
        sa.PrimaryKeyConstraint("tenant_id", "held_id", name="pk_held_session_logouts"),
    )
    op.create_index(
        "uq_held_session_logouts_order_key",
        "held_session_logouts",
        ["tenant_id", "order_key"],
        unique=True,
    )
    op.create_index("ix_held_session_logouts_held_at", "held_session_logouts", ["held_at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("held_session_logouts")
    op.drop_table("session_apps")
