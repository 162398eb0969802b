"""Which apps users have used: many new ones at once are a finding.

Phase: expand. The release before does not look at it; what users open meanwhile is new later.
"""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "user_apps",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("app", sa.String(200), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "app", name="pk_user_apps"),
    )
    op.create_index("ix_user_apps_last_at", "user_apps", ["last_at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("user_apps")
