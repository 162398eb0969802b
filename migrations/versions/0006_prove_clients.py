"""How clients prove themselves, which assertions were used, and authorization servers of others.

Phase: expand. The release before ignores the new columns: a client without a secret has no token
there, and one with a role has the scopes that go with it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

#: aware UTC moments
UTC = sa.DateTime(timezone=True)
#: JSON documents; None is SQL NULL
DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)
EXTERNAL = "ix_clients_external_client"


def client_columns() -> list[sa.Column]:
    """Return the columns that clients get."""
    return [
        sa.Column("auth_method", sa.String(32), nullable=False, server_default="client_secret"),
        sa.Column("jwks", DOCUMENT),
        sa.Column("jwks_uri", sa.String(1000)),
        sa.Column("tls_subject", sa.String(1000)),
        sa.Column("authorization_server_id", sa.String(64)),
        sa.Column("external_client_id", sa.String(255)),
        sa.Column("role", sa.String(16)),
    ]


def upgrade() -> None:
    """Add the columns and the tables."""
    for column in client_columns():
        op.add_column("clients", column)
    op.create_index(
        EXTERNAL,
        "clients",
        ["tenant_id", "authorization_server_id", "external_client_id"],
        unique=True,
    )
    op.create_table(
        "client_assertions",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("jti_hash", sa.String(64), nullable=False),
        sa.Column("expires_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "client_id", "jti_hash", name="pk_client_assertions"),
    )
    op.create_table(
        "authorization_servers",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("server_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("issuer", sa.String(700), nullable=False),
        sa.Column("audiences", DOCUMENT, nullable=False),
        sa.Column("jwks_uri", sa.String(1000)),
        sa.Column("jwks", DOCUMENT),
        sa.Column("introspection_url", sa.String(1000)),
        sa.Column("introspection_client_id", sa.String(255)),
        sa.Column("introspection_secret_sealed", sa.Text),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "server_id", name="pk_authorization_servers"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_authorization_servers_tenant_id_name"),
        sa.UniqueConstraint(
            "tenant_id", "issuer", name="uq_authorization_servers_tenant_id_issuer"
        ),
    )


def downgrade() -> None:
    """Drop them: clients that prove themselves by a key cannot any more."""
    op.drop_table("authorization_servers")
    op.drop_table("client_assertions")
    op.drop_index(EXTERNAL, "clients")
    for column in reversed(client_columns()):
        op.drop_column("clients", column.name)
