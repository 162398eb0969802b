"""Alembic environment: migrates the connection that `hub.migrate` hands over.

The declared state that tests compare with is `migrations.tables`.
"""

from __future__ import annotations

from alembic import context

from migrations.tables import metadata

#: milliseconds: a migration that cannot get its locks gives up instead of queueing everybody
LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 600_000


def run_migrations() -> None:
    """Run the asked-for revisions on the given connection, in one transaction."""
    connection = context.config.attributes["connection"]
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=False,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


run_migrations()
