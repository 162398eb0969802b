"""Finds a session by its cookie, and by its id where the issuer is not said.

Phase: expand.
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the indexes."""
    op.create_index("ix_sessions_sid", "sessions", ["tenant_id", "sid"])
    op.create_index("ix_sessions_cookie_sha256", "sessions", ["tenant_id", "cookie_sha256"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_sessions_cookie_sha256", "sessions")
    op.drop_index("ix_sessions_sid", "sessions")
