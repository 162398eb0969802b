"""How an app is guarded at a gateway.

Phase: expand.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


def upgrade() -> None:
    """Add the column."""
    op.add_column("apps", sa.Column("forward_auth", DOCUMENT, nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("apps", "forward_auth")
