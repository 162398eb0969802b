"""Feedback of people, what it says of findings, and when each revision of a finding was written.

Phase: expand. The release before knows no feedback and leaves `recorded_at` empty.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)
#: aware UTC moments
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the two tables, the column and the index."""
    op.create_table(
        "feedback",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("feedback_id", sa.String(64), nullable=False),
        sa.Column("entity_kind", sa.String(16), nullable=False),
        sa.Column("entity_id", sa.String(64), nullable=False),
        sa.Column("detection_id", sa.String(64), nullable=True),
        sa.Column("touches", DOCUMENT, nullable=False),
        sa.Column("word", sa.String(24), nullable=False),
        sa.Column("level", sa.String(8), nullable=True),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("said_by", sa.String(200), nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("until", UTC, nullable=True),
        sa.Column("undone_at", UTC, nullable=True),
        sa.Column("undone_by", sa.String(200), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "feedback_id", name="pk_feedback"),
    )
    op.create_index("ix_feedback_entity_id", "feedback", ["tenant_id", "entity_id", "feedback_id"])
    op.create_table(
        "labels",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("feedback_id", sa.String(64), nullable=False),
        sa.Column("detection_id", sa.String(64), nullable=False),
        sa.Column("issuer", sa.String(1024), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("label", sa.String(16), nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "feedback_id", "detection_id", name="pk_labels"),
    )
    op.add_column("detections", sa.Column("recorded_at", UTC, nullable=True))
    op.create_index("ix_sessions_session_id", "sessions", ["tenant_id", "session_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_sessions_session_id", "sessions")
    op.drop_column("detections", "recorded_at")
    op.drop_table("labels")
    op.drop_index("ix_feedback_entity_id", "feedback")
    op.drop_table("feedback")
