"""Which streams ask for an event type, so that publishing reads only those.

Phase: expand. It also makes the rows of the streams that are there. A stream made by the old code
afterwards is heard of after its next change: let the old processes end first.
"""

import hashlib

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

#: tables that hold rows after this step, when there were streams before it
FILLS = ("stream_interests",)
BATCH = 500
DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)
STREAMS = sa.table(
    "streams",
    sa.column("tenant_id", sa.String),
    sa.column("stream_id", sa.String),
    sa.column("events_requested", DOCUMENT),
)


def upgrade() -> None:
    """Add the table and fill it."""
    interests = op.create_table(
        "stream_interests",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("type_digest", sa.String(32), nullable=False),
        sa.Column("stream_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id", "type_digest", "stream_id", name="pk_stream_interests"
        ),
    )
    op.create_index("ix_stream_interests_stream", "stream_interests", ["tenant_id", "stream_id"])
    rows = [
        {"tenant_id": tenant_id, "type_digest": digest, "stream_id": stream_id}
        for tenant_id, stream_id, requested in op.get_bind().execute(sa.select(STREAMS)).all()
        for digest in sorted({digest_of(uri) for uri in requested})
    ]
    for start in range(0, len(rows), BATCH):
        op.bulk_insert(interests, rows[start : start + BATCH])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("stream_interests")


def digest_of(event_type: str) -> str:
    """Return what stands for an event type."""
    return hashlib.sha256(event_type.encode()).hexdigest()[:32]
