"""What was settled about the contexts of sessions.

Phase: expand. The release before decides without them and ignores the table.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "session_stands",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("context_key", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("step_up_id", sa.String(64), nullable=False),
        sa.Column("acr", sa.String(200), nullable=False),
        sa.Column("trace_id", sa.String(1024), nullable=False),
        sa.Column("app_id", sa.String(200), nullable=False),
        sa.Column("context", JSON, nullable=False),
        sa.Column("since", UTC, nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "session_id", "context_key", name="pk_session_stands"),
    )
    op.create_index("ix_session_stands_at", "session_stands", ["at"])


def downgrade() -> None:
    """Drop it; every context is a new one then."""
    op.drop_table("session_stands")
