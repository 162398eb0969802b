"""Access tokens that were revoked before they expired.

Phase: expand. The release before issues no access tokens.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "revoked_tokens",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("jti", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("expires_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "jti", name="pk_revoked_tokens"),
    )


def downgrade() -> None:
    """Drop it: revoked tokens are valid again until they expire."""
    op.drop_table("revoked_tokens")
