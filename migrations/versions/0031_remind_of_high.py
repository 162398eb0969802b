"""Reminders of users who are at HIGH for long: what was told already.

Phase: expand. The release before reminds nobody.
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "reminders",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("reminder_id", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "reminder_id", name="pk_reminders"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("reminders")
