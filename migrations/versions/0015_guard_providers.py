"""Guards: whom providers marked HIGH, quarantines, break-glass users, a limit of providers.

Phase: expand. The release before guards nothing of this and ignores what is new.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the three tables and the limit."""
    op.create_table(
        "provider_harms",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("iss", sa.String(700), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "iss", "user_id", name="pk_provider_harms"),
    )
    op.create_index("ix_provider_harms_at", "provider_harms", ["tenant_id", "iss", "at"])
    op.create_table(
        "provider_quarantines",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("quarantine_id", sa.String(64), nullable=False),
        sa.Column("provider_id", sa.String(64), nullable=False),
        sa.Column("iss", sa.String(700), nullable=False),
        sa.Column("marked", sa.Integer(), nullable=False),
        sa.Column("users", sa.Integer(), nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("told_at", UTC, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "quarantine_id", name="pk_provider_quarantines"),
    )
    op.create_table(
        "break_glass",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("entry_id", sa.String(64), nullable=False),
        sa.Column("user", sa.String(2048), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("added_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "entry_id", name="pk_break_glass"),
    )
    op.add_column(
        "providers",
        sa.Column("high_users_per_hour_max", sa.Integer(), nullable=False, server_default="100"),
    )


def downgrade() -> None:
    """Take it all away again; counts and the list of users are lost."""
    op.drop_column("providers", "high_users_per_hour_max")
    op.drop_table("break_glass")
    op.drop_table("provider_quarantines")
    op.drop_table("provider_harms")
