"""Proofs of the keys that sessions are bound to, each good once.

Phase: expand. The release before asks for none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "session_proofs",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("proof_id", sa.String(64), nullable=False),
        sa.Column("context_key", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "session_id", "proof_id", name="pk_session_proofs"),
    )
    op.create_index("ix_session_proofs_at", "session_proofs", ["at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("session_proofs")
