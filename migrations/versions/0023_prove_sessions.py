"""When the user of a session proved themselves, and the key that the session is bound to.

Phase: expand. The release before leaves both empty.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Add the columns and tables."""
    op.add_column("sessions", sa.Column("auth_time", UTC))
    op.add_column("sessions", sa.Column("binding", JSON))
    op.create_table(
        "session_contexts",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("context_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(64)),
        sa.Column("at", UTC, nullable=False),
        sa.Column("facts", sa.LargeBinary(), nullable=False),
        sa.Column("decision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "context_id", name="pk_session_contexts"),
    )
    op.create_index("ix_session_contexts_at", "session_contexts", ["at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("session_contexts")
    op.drop_column("sessions", "binding")
    op.drop_column("sessions", "auth_time")
