"""The place of changes in the order of commits, so that readings ask for what is new only.

Phase: expand. The release before goes on by time; on PostgreSQL what it adds gets its place too.
On SQLite what it adds gets none, but there the release before has ended when this one begins.
"""

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

PRESENT_TRANSACTION = "((pg_current_xact_id())::text)::bigint"


def upgrade() -> None:
    """Add the column and its index."""
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    default = sa.text(PRESENT_TRANSACTION if on_postgresql else "0")
    op.add_column(
        "changes",
        sa.Column("position", sa.BigInteger, nullable=False, server_default=default),
    )
    op.create_index("ix_changes_position", "changes", ["position"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_changes_position", "changes")
    op.drop_column("changes", "position")
