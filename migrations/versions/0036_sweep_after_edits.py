"""Sweeps after edits of policies, and contexts that stay known when more is asked of them.

Phase: expand. The release before sweeps nothing, and forgets that a context was accepted.
"""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, the column, and an index for the containments of a user."""
    op.create_table(
        "sweeps",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("sweep_id", sa.String(64), nullable=False),
        sa.Column("cause", sa.String(200), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("after", sa.String(64), nullable=False),
        sa.Column("looked", sa.Integer, nullable=False),
        sa.Column("acted", sa.Integer, nullable=False),
        sa.Column("would_have", sa.Integer, nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("tenant_id", "kind", name="pk_sweeps"),
    )
    op.create_index("ix_sweeps_state", "sweeps", ["state", "worked_at"])
    op.add_column(
        "session_stands",
        sa.Column("was_accepted", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_index("ix_containments_user_id", "containments", ["tenant_id", "user_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_containments_user_id", "containments")
    op.drop_column("session_stands", "was_accepted")
    op.drop_table("sweeps")
