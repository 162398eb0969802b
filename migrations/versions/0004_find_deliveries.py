"""Find deliveries by time, by what led to them, and dead ones, however many there are.

Phase: expand. The release before reads the same tables without these indexes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_DEAD = sa.text("state = 'dead'")


def upgrade() -> None:
    """Add the indexes."""
    op.create_index(
        "ix_deliveries_dead",
        "deliveries",
        ["tenant_id", "stream_id", "jti"],
        sqlite_where=_DEAD,
        postgresql_where=_DEAD,
    )
    op.create_index(
        "ix_deliveries_dead_of_all",
        "deliveries",
        ["tenant_id", "jti"],
        sqlite_where=_DEAD,
        postgresql_where=_DEAD,
    )
    op.create_index("ix_deliveries_tenant_id_jti", "deliveries", ["tenant_id", "jti"])
    op.create_index("ix_events_tenant_id_txn", "events", ["tenant_id", "txn"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_events_tenant_id_txn", "events")
    op.drop_index("ix_deliveries_tenant_id_jti", "deliveries")
    op.drop_index("ix_deliveries_dead_of_all", "deliveries")
    op.drop_index("ix_deliveries_dead", "deliveries")
