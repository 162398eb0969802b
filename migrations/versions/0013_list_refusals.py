"""Refused SETs, kept to be seen and tried again; signals that failed are found by an index.

Phase: expand. The release before logs refusals only.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)
FAILED = sa.text("state = 'failed'")


def upgrade() -> None:
    """Add the tables and the index."""
    op.create_table(
        "ingest_errors",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("error_id", sa.String(64), nullable=False),
        sa.Column("provider_id", sa.String(64), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("requirement", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("jti", sa.String(200)),
        sa.Column("event_type", sa.String(200)),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("raw_sealed", sa.Text()),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("tried_at", UTC),
        sa.PrimaryKeyConstraint("tenant_id", "error_id", name="pk_ingest_errors"),
    )
    op.create_index(
        "ix_ingest_errors_ring", "ingest_errors", ["tenant_id", "provider_id", "code", "error_id"]
    )
    op.create_table(
        "ingest_error_counts",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("provider_id", sa.String(64), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_at", UTC, nullable=False),
        sa.Column("last_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "provider_id", "code", name="pk_ingest_error_counts"),
    )
    op.create_index(
        "ix_signals_failed",
        "signals",
        ["tenant_id", "signal_id"],
        sqlite_where=FAILED,
        postgresql_where=FAILED,
    )


def downgrade() -> None:
    """Drop them: what was refused is in the log only."""
    op.drop_index("ix_signals_failed", table_name="signals")
    op.drop_table("ingest_error_counts")
    op.drop_index("ix_ingest_errors_ring", table_name="ingest_errors")
    op.drop_table("ingest_errors")
