"""SQLite without a thread hop: the driver SQLAlchemy's async engine sees runs in the event loop.

The usual driver hands every call to a thread and waits for it, four hand-overs per statement. A
statement of ours takes SQLite some ten microseconds, so the hand-overs cost more than the work
(ADR 0009 has the figures). Reads in WAL mode never wait for a lock; writes may, so only the core
process, which owns the file's writes, runs them here. Everybody else writes through the threaded
driver.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Self


class InlineCursor:
    """The part of `aiosqlite.Cursor` that SQLAlchemy uses, run in place."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    async def __aenter__(self) -> Self:
        """Return itself; nothing has to be waited for."""
        return self

    @property
    def description(self) -> Any:
        """Columns of the result, None for statements without one."""
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The rowid of the last insert."""
        return self._cursor.lastrowid

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> InlineCursor:
        """Run one statement."""
        self._cursor.execute(statement, parameters)
        return self

    async def executemany(
        self, statement: str, parameters: Sequence[Sequence[Any]]
    ) -> InlineCursor:
        """Run one statement once per row of parameters."""
        self._cursor.executemany(statement, parameters)
        return self

    async def fetchone(self) -> Any:
        """Return the next row or None."""
        return self._cursor.fetchone()

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows."""
        return self._cursor.fetchmany(size or self._cursor.arraysize)

    async def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        return self._cursor.fetchall()

    async def close(self) -> None:
        """Forget the result."""
        self._cursor.close()


class InlineConnection:
    """The part of `aiosqlite.Connection` that SQLAlchemy uses, run in place."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._conn = connection

    @classmethod
    async def open(cls, database: str, **options: Any) -> InlineConnection:
        """Open a database file; options as `sqlite3.connect` takes them."""
        return cls(sqlite3.connect(database, **options))

    @property
    def _connection(self) -> sqlite3.Connection:
        # SQLAlchemy's adapter asks for it to see whether the connection is open.
        return self._conn

    @property
    def isolation_level(self) -> str | None:
        """How the driver begins transactions; None, because `runtime.database` does."""
        return self._conn.isolation_level

    def cursor(self) -> InlineCursor:
        """Return a cursor."""
        return InlineCursor(self._conn.cursor())

    async def create_function(
        self, name: str, arguments: int, function: Callable[..., Any], **options: Any
    ) -> None:
        """Register an SQL function; SQLAlchemy brings one for regular expressions."""
        self._conn.create_function(name, arguments, function, **options)

    async def commit(self) -> None:
        """Commit what is open."""
        self._conn.commit()

    async def rollback(self) -> None:
        """Roll back what is open."""
        self._conn.rollback()

    async def close(self) -> None:
        """Close the file."""
        self._conn.close()

    def stop(self) -> None:
        """Close without waiting, when the pool gives up on the connection."""
        self._conn.close()
