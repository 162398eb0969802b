"""Relay: rules, a record per relayed signal, and through which hubs an event came.

Phase: expand. The release before relays nothing and ignores what is new.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)
#: JSON documents; None is SQL NULL
DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


def upgrade() -> None:
    """Add the two tables, and the hops of signals and events."""
    op.create_table(
        "relay_rules",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("rule_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("providers", DOCUMENT, nullable=True),
        sa.Column("event_types", DOCUMENT, nullable=True),
        sa.Column("streams", DOCUMENT, nullable=True),
        sa.Column("apps", DOCUMENT, nullable=True),
        sa.Column("unresolved", sa.String(16), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("to_provider", sa.Boolean(), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "rule_id", name="pk_relay_rules"),
    )
    op.create_table(
        "relayed",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("signal_id", sa.String(64), nullable=False),
        sa.Column("rule_id", sa.String(64), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("upstream_iss", sa.String(700), nullable=False),
        sa.Column("upstream_jti", sa.String(512), nullable=False),
        sa.Column("upstream_txn", sa.String(1024), nullable=True),
        sa.Column("txn", sa.String(64), nullable=False),
        sa.Column("streams", DOCUMENT, nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "signal_id", "rule_id", name="pk_relayed"),
    )
    op.add_column("signals", sa.Column("hops", DOCUMENT, nullable=True))
    op.add_column("events", sa.Column("hops", DOCUMENT, nullable=True))


def downgrade() -> None:
    """Take it all away again; rules and records are lost."""
    op.drop_column("events", "hops")
    op.drop_column("signals", "hops")
    op.drop_table("relayed")
    op.drop_table("relay_rules")
