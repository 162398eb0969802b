"""Sign-ins that were judged, and what counts as new in a tenant.

Phase: expand. The release before reads none of it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


def upgrade() -> None:
    """Add both tables."""
    op.create_table(
        "sign_ins",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("sign_in_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("phase", sa.String(8), nullable=False),
        sa.Column("outcome", sa.String(8), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("ip", sa.String(45), nullable=False),
        sa.Column("facts", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "sign_in_id", name="pk_sign_ins"),
    )
    op.create_index("ix_sign_ins_user_id", "sign_ins", ["tenant_id", "user_id", "sign_in_id"])
    op.create_index("ix_sign_ins_at", "sign_ins", ["at"])
    op.create_table(
        "behaviours",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("behaviour_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("events_max", sa.Integer(), nullable=False),
        sa.Column("events_min", sa.Integer(), nullable=False),
        sa.Column("granularity", sa.String(16), nullable=True),
        sa.Column("radius_km", sa.Float(), nullable=True),
        sa.Column("velocity_kph", sa.Float(), nullable=True),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "behaviour_id", name="pk_behaviours"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_behaviours_tenant_id_name"),
    )


def downgrade() -> None:
    """Take them away again."""
    op.drop_table("behaviours")
    op.drop_index("ix_sign_ins_at", "sign_ins")
    op.drop_index("ix_sign_ins_user_id", "sign_ins")
    op.drop_table("sign_ins")
