"""Whole stream management: subjects of a stream, its default, announcements, verification.

Phase: expand. The release before ignores what is new: it knows no subjects and changes no status.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)
#: JSON documents; None is SQL NULL
DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


def upgrade() -> None:
    """Add the table of subjects, and what a stream has to remember."""
    op.create_table(
        "stream_subjects",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("stream_id", sa.String(64), nullable=False),
        sa.Column("subject_key", sa.String(64), nullable=False),
        sa.Column("name_key", sa.String(640), nullable=False),
        sa.Column("is_excluded", sa.Boolean(), nullable=False),
        sa.Column("subject", DOCUMENT, nullable=False),
        sa.Column("is_verified", sa.Boolean(), nullable=False),
        sa.Column("since", UTC, nullable=False),
        sa.Column("until", UTC, nullable=True),
        sa.PrimaryKeyConstraint(
            "tenant_id", "stream_id", "subject_key", "name_key", name="pk_stream_subjects"
        ),
    )
    op.create_index("ix_stream_subjects_name_key", "stream_subjects", ["tenant_id", "name_key"])
    op.add_column(
        "streams",
        sa.Column("default_subjects", sa.String(8), nullable=False, server_default="ALL"),
    )
    op.add_column(
        "streams", sa.Column("subject_count", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column("streams", sa.Column("announcement_jti", sa.String(64), nullable=True))
    op.add_column("streams", sa.Column("verification_asked_at", UTC, nullable=True))
    op.add_column(
        "tenants",
        sa.Column("default_subjects", sa.String(8), nullable=False, server_default="ALL"),
    )


def downgrade() -> None:
    """Take it all away again; subjects of streams are lost."""
    op.drop_column("tenants", "default_subjects")
    op.drop_column("streams", "verification_asked_at")
    op.drop_column("streams", "announcement_jti")
    op.drop_column("streams", "subject_count")
    op.drop_column("streams", "default_subjects")
    op.drop_table("stream_subjects")
