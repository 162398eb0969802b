"""Bring a database to the newest schema: `signalhub migrate`, and every start on SQLite."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import migrations
from runtime.database import Database

HEAD: Final = "head"


class SchemaMismatch(Exception):  # noqa: N818 - says what it is
    """The database's schema is not the one this release needs."""


async def migrate(database: Database, *, to: str = HEAD) -> str:
    """Upgrade to revision `to`; return the revision reached. All in one transaction."""
    async with database.transaction() as connection:
        return await connection.run_sync(_upgrade, to)


async def downgrade(database: Database, *, to: str) -> str:
    """Go back to revision `to` (or `base`); return the revision reached."""
    async with database.transaction() as connection:
        return await connection.run_sync(_downgrade, to)


async def check_schema(database: Database) -> None:
    """Raise SchemaMismatch unless the database is at this release's revision."""
    async with database.snapshot() as connection:
        present = await connection.run_sync(_revision)
    wanted = ScriptDirectory.from_config(_config(None)).get_current_head()
    if present != wanted:
        raise SchemaMismatch(
            f"the database is at revision {present or 'none'}, this release needs {wanted}: "
            "run 'signalhub migrate'"
        )


def _config(connection: sa.Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: sa.Connection, to: str) -> str:
    command.upgrade(_config(connection), to)
    return _revision(connection) or "none"


def _downgrade(connection: sa.Connection, to: str) -> str:
    command.downgrade(_config(connection), to)
    return _revision(connection) or "none"


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
