"""How the webhooks of a provider are signed, and what they mean.

Phase: expand. The release before reads none of it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

#: JSON documents; None is SQL NULL
DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


def upgrade() -> None:
    """Add both columns."""
    op.add_column("providers", sa.Column("webhook", DOCUMENT, nullable=True))
    op.add_column("providers", sa.Column("webhook_secrets_sealed", sa.Text(), nullable=True))


def downgrade() -> None:
    """Take them away again; the webhooks' secrets are lost."""
    op.drop_column("providers", "webhook_secrets_sealed")
    op.drop_column("providers", "webhook")
