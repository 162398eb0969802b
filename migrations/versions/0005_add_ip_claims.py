"""What providers say of IP addresses, how often each may say it, and which client speaks for whom.

Phase: expand. The release before reads none of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add both tables and the binding of a provider to a client."""
    op.create_table(
        "ip_claims",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("ip", sa.String(45), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("message", sa.String(512), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("reported_at", UTC, nullable=False),
        sa.Column("expires_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "ip", "source", name="pk_ip_claims"),
    )
    op.create_index("ix_ip_claims_expires_at", "ip_claims", ["expires_at"])
    op.create_table(
        "ip_report_windows",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("started_at", UTC, nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "client_id", name="pk_ip_report_windows"),
    )
    op.add_column("providers", sa.Column("client_id", sa.String(64), nullable=True))


def downgrade() -> None:
    """Take it all away again."""
    op.drop_column("providers", "client_id")
    op.drop_table("ip_report_windows")
    op.drop_index("ix_ip_claims_expires_at", "ip_claims")
    op.drop_table("ip_claims")
