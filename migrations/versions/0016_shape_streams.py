"""How the SETs of a stream look: the profile of its receiver, and a key to encrypt them for.

Phase: expand. The release before sends every stream what SSF 1.0 says, unencrypted.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    final = {"nullable": False, "server_default": "final"}
    op.add_column("streams", sa.Column("profile", sa.String(16), **final))
    op.add_column("streams", sa.Column("encryption_key", sa.Text()))
    op.add_column("apps", sa.Column("stream_profile", sa.String(16), **final))


def downgrade() -> None:
    """Take them away again."""
    op.drop_column("apps", "stream_profile")
    op.drop_column("streams", "encryption_key")
    op.drop_column("streams", "profile")
