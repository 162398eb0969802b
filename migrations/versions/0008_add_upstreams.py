"""Upstreams: transmitters that the hub polls, and whose streams it manages.

Phase: expand. The release before ignores the new tables.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)
#: JSON documents; None is SQL NULL
DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


def upgrade() -> None:
    """Add the tables of upstreams and of the states of verifications."""
    op.create_table(
        "upstreams",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("upstream_id", sa.String(64), nullable=False),
        sa.Column("provider_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("delivery", sa.String(8), nullable=False),
        sa.Column("metadata_url", sa.String(2048), nullable=True),
        sa.Column("events_requested", DOCUMENT, nullable=False),
        sa.Column("description", sa.String(1000), nullable=True),
        sa.Column("endpoint_url", sa.String(2048), nullable=True),
        sa.Column("auth", sa.String(32), nullable=False),
        sa.Column("client_id", sa.String(512), nullable=True),
        sa.Column("token_endpoint", sa.String(2048), nullable=True),
        sa.Column("scope", sa.String(512), nullable=True),
        sa.Column("verify_every_s", sa.Integer(), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("secret_sealed", sa.Text(), nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.Column("metadata", DOCUMENT, nullable=True),
        sa.Column("stream", DOCUMENT, nullable=True),
        sa.Column("stream_id", sa.String(256), nullable=True),
        sa.Column("stream_status", sa.String(16), nullable=True),
        sa.Column("stream_reason", sa.Text(), nullable=True),
        sa.Column("order_id", sa.String(64), nullable=True),
        sa.Column("order_action", sa.String(16), nullable=True),
        sa.Column("order_arguments", DOCUMENT, nullable=True),
        sa.Column("order_state", sa.String(16), nullable=True),
        sa.Column("order_attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("order_asked_at", UTC, nullable=True),
        sa.Column("order_due_at", UTC, nullable=True),
        sa.Column("order_settled_at", UTC, nullable=True),
        sa.Column("order_detail", sa.Text(), nullable=True),
        sa.Column("acks", DOCUMENT, nullable=True),
        sa.Column("set_errs", DOCUMENT, nullable=True),
        sa.Column("poll_due_at", UTC, nullable=True),
        sa.Column("poll_failures", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("verify_due_at", UTC, nullable=True),
        sa.Column("status_due_at", UTC, nullable=True),
        sa.Column("awaiting_since", UTC, nullable=True),
        sa.Column("last_verified_at", UTC, nullable=True),
        sa.Column("last_set_at", UTC, nullable=True),
        sa.Column("failing_since", UTC, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("is_silent", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("tenant_id", "upstream_id", name="pk_upstreams"),
        sa.UniqueConstraint("tenant_id", "provider_id", name="uq_upstreams_tenant_id_provider_id"),
    )
    op.create_table(
        "upstream_states",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("upstream_id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("asked_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "upstream_id", "state", name="pk_upstream_states"),
    )


def downgrade() -> None:
    """Take the tables away again; upstreams are lost, their streams at the vendors stay."""
    op.drop_table("upstream_states")
    op.drop_table("upstreams")
