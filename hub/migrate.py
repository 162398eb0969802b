"""Bring a database to the newest schema: `signalhub migrate`, and every start on SQLite."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import sqlalchemy as sa

import migrations
from hub.settings import SettingsError
from runtime.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

HEAD: Final = "head"
#: where Alembic keeps the revision
_VERSION: Final = sa.table("alembic_version", sa.column("version_num", sa.String))


class SchemaMismatch(Exception):  # noqa: N818 - says what it is
    """The database's schema is not the one this release needs."""


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """Open the database for a command and close it at the end.

    Raises SettingsError when it cannot be reached or its URL makes no sense; never shows the URL,
    which may hold a password.
    """
    try:
        _check_folder(url)
        database = Database.connect(url)
    except (ValueError, sa.exc.ArgumentError) as error:
        raise SettingsError(
            "SIGNALHUB_DATABASE_URL: sqlite:///path or postgresql://user:password@host/name"
        ) from error
    try:
        yield database
    except (OSError, sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        raise _unreachable(error) from error
    except asyncpg.PostgresError as error:
        # What PostgreSQL says while connecting comes without SQLAlchemy's wrapping.
        raise _unreachable(error) from error
    finally:
        await database.close()


def _check_folder(url: str) -> None:
    """Raise SettingsError when an SQLite file could not even be made; ArgumentError for no URL."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        folder = Path(parsed.database).parent
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise SettingsError(
                f"SIGNALHUB_DATABASE_URL: {folder} is not a folder that this user may write to"
            )


def _unreachable(error: Exception) -> SettingsError:
    return SettingsError(
        f"SIGNALHUB_DATABASE_URL: the database is not reachable ({type(error).__name__}); check "
        "that it runs, that the address and the password are right and that the database exists"
    )


def newest_revision() -> str:
    """Return this release's revision, the number that the last file in `versions` begins with.

    Raises nothing. A start that has nothing to migrate does not have to load Alembic and all
    revisions to find that out.
    """
    folder = Path(migrations.__file__).parent / "versions"
    return max(file.name.partition("_")[0] for file in folder.glob("[0-9]*_*.py"))


async def migrate(database: Database, *, to: str = HEAD) -> str:
    """Upgrade to revision `to`; return the revision reached. All in one transaction."""
    if to == HEAD and await present_revision(database) == newest_revision():
        return newest_revision()
    async with database.transaction() as connection:
        return await connection.run_sync(_upgrade, to)


async def downgrade(database: Database, *, to: str) -> str:
    """Go back to revision `to` (or `base`); return the revision reached."""
    async with database.transaction() as connection:
        return await connection.run_sync(_downgrade, to)


async def check_schema(database: Database) -> None:
    """Raise SchemaMismatch unless the database is at this release's revision."""
    present, wanted = await present_revision(database), newest_revision()
    if present != wanted:
        raise SchemaMismatch(
            f"the database is at revision {present or 'none'}, this release needs {wanted}: "
            "run 'signalhub migrate'"
        )


async def present_revision(database: Database) -> str | None:
    """Return the revision that the database is at; None: it has none."""
    async with database.snapshot() as connection:
        return await connection.run_sync(_revision)


def _config(connection: sa.Connection | None) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: sa.Connection, to: str) -> str:
    from alembic import command  # noqa: PLC0415

    command.upgrade(_config(connection), to)
    return _revision(connection) or "none"


def _downgrade(connection: sa.Connection, to: str) -> str:
    from alembic import command  # noqa: PLC0415

    command.downgrade(_config(connection), to)
    return _revision(connection) or "none"


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSION.name):
        return None
    return connection.scalar(sa.select(_VERSION.c.version_num))
