"""A PostgreSQL database with all tables that one test after the other may have, always empty.

And how tests know that one transaction waits for another.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runtime.database import Database, metadata

#: Ends all other connections, and makes tables as new: rows, sequences, sizes.
_EMPTY: Final = """
DO $$
DECLARE filled text;
BEGIN
  PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
  SELECT string_agg(oid::regclass::text, ', ') INTO filled FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0;
  IF filled IS NOT NULL THEN
    EXECUTE 'TRUNCATE ' || filled || ' RESTART IDENTITY CASCADE';
  END IF;
END $$
"""
_COLUMNS: Final = """
SELECT table_class.relname, attname, atttypid::integer, attnotnull
FROM pg_attribute JOIN pg_class AS table_class ON table_class.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
"""
_STATISTICS: Final = """
SELECT count(*) FROM pg_statistic JOIN pg_class ON pg_class.oid = starelid
WHERE relnamespace = 'public'::regnamespace
"""
_WAITING: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class TidyDatabase:
    """A database on a server, made when somebody wants it, and emptied after each use.

    A new one for each test, from a template, costs many times as much: it has hundreds of tables
    and indexes, of which a test fills a few.
    """

    def __init__(self, server: str) -> None:
        """server: URL of the server, as its administrator."""
        self._server = server
        self._name = ""
        self._made: set[tuple[Any, ...]] = set()

    async def take(self) -> str:
        """Return the URL of the empty database."""
        if not self._name:
            self._name = f"t_{secrets.token_hex(8)}"
            await administer(self._server, f'CREATE DATABASE "{self._name}"')
            made = Database.connect(self._url)
            async with made.transaction() as connection:
                await connection.run_sync(metadata.create_all)
                self._made = await _columns(connection)
            await made.close()
        return self._url

    async def give_back(self) -> None:
        """Empty it; what is not as it was made, or has been analysed, is not used again."""
        engine = _engine(self._url)
        async with engine.connect() as connection:
            await connection.execute(sa.text(_EMPTY))
            whole = self._made <= await _columns(connection)
            analysed = await connection.scalar(sa.text(_STATISTICS))
        await engine.dispose()
        if analysed or not whole:
            await self.drop()

    async def drop(self) -> None:
        """Take it off the server, if it is there."""
        if self._name:
            await administer(self._server, f'DROP DATABASE "{self._name}" WITH (FORCE)')
            self._name = ""

    @property
    def _url(self) -> str:
        url = sa.make_url(self._server).set(database=self._name)
        return url.render_as_string(hide_password=False)


async def until_it_waits(database: Database, task: asyncio.Task[Any]) -> None:
    """Return when somebody waits for another transaction of the database, or the task is over."""
    found = 0
    while not found and not task.done():
        async with database.snapshot() as connection:
            found = await connection.scalar(sa.text(_WAITING)) or 0


async def administer(server: str, statement: str) -> None:
    """Run one statement outside a transaction."""
    engine = _engine(server)
    async with engine.connect() as connection:
        await connection.execute(sa.text(statement))
    await engine.dispose()


def _engine(url: str) -> AsyncEngine:
    driver = sa.make_url(url).set(drivername="postgresql+asyncpg")
    return create_async_engine(driver, isolation_level="AUTOCOMMIT")


async def _columns(connection: AsyncConnection) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in await connection.execute(sa.text(_COLUMNS))}
