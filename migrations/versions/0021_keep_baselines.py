"""What is known-good of each user, and where a tenant's users are seen.

Phase: expand. The release before reads none of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add both tables."""
    op.create_table(
        "baselines",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", name="pk_baselines"),
    )
    op.create_table(
        "org_values",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("dimension", sa.String(16), nullable=False),
        sa.Column("value", sa.String(200), nullable=False),
        sa.Column("users", sa.Integer(), nullable=False),
        sa.Column("last_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "dimension", "value", name="pk_org_values"),
    )
    op.create_index("ix_org_values_last_at", "org_values", ["last_at"])


def downgrade() -> None:
    """Take them away again."""
    op.drop_index("ix_org_values_last_at", "org_values")
    op.drop_table("org_values")
    op.drop_table("baselines")
