"""A limit of messages per second on providers.

Phase: expand. The release before limits nobody.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the limit; null for none."""
    op.add_column("providers", sa.Column("sets_per_s_max", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Take it away again."""
    op.drop_column("providers", "sets_per_s_max")
