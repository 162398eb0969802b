"""SQLite without a thread hop: the driver SQLAlchemy's async engine sees runs in the event loop.

The usual driver hands every call to a thread and waits for it, four hand-overs per statement. A
statement of ours takes SQLite some ten microseconds, so the hand-overs cost more than the work.
Reads in WAL mode never wait for a lock; writes may, so only the core process, which owns the file's
writes, runs them here. Everybody else writes through the threaded driver.

Where this driver runs, statements that are rendered already (`runtime.statements`) need nothing of
SQLAlchemy but its transaction: `driver_of` gives them the connection itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

#: where SQLAlchemy's record of a connection keeps the driver's own
_DRIVER: Final = "signalhub_driver"
_SAVEPOINT: Final = "signalhub_attempt"


class Driver:
    """One connection of the driver, for statements that are text already.

    What it runs belongs to the transaction that SQLAlchemy began on the same connection. Errors are
    SQLAlchemy's, as everywhere.
    """

    __slots__ = ("_connection", "_dialect")

    def __init__(self, connection: sqlite3.Connection, dialect: sa.Dialect) -> None:
        self._connection = connection
        self._dialect = dialect

    def run(self, text: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement. Raises database errors."""
        try:
            return self._connection.execute(text, values)
        except sqlite3.Error as error:
            raise self._translated(error, text, values) from error

    def rows(self, text: str, values: Sequence[Any]) -> tuple[list[Any], Any]:
        """Return all rows and the description of the columns. Raises database errors."""
        cursor = self.run(text, values)
        try:
            return cursor.fetchall(), cursor.description
        except sqlite3.Error as error:
            raise self._translated(error, text, values) from error

    def run_many(self, text: str, rows: Sequence[Sequence[Any]]) -> int:
        """Run one statement for each row; return how many rows changed. Raises database errors."""
        try:
            return self._connection.executemany(text, rows).rowcount
        except sqlite3.Error as error:
            raise self._translated(error, text, rows) from error

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[Savepoint]:
        """Begin a part of the transaction; it is undone on an error, or when it is rolled back."""
        attempt = Savepoint(self)
        self.run(f"SAVEPOINT {_SAVEPOINT}")
        try:
            yield attempt
        except BaseException:
            await attempt.rollback()
            raise
        finally:
            self.run(f"RELEASE {_SAVEPOINT}")

    def _translated(self, error: sqlite3.Error, text: str, values: Any) -> Exception:
        return cast(
            "Exception",
            sa.exc.DBAPIError.instance(
                text, values, error, sqlite3.Error, dialect=self._dialect, hide_parameters=True
            ),
        )


class Savepoint:
    """A part of a transaction."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def rollback(self) -> None:
        """Undo what was done since it began."""
        self._driver.run(f"ROLLBACK TO {_SAVEPOINT}")


def keep_driver(connection: Any, record: Any, dialect: sa.Dialect) -> None:
    """Note the driver's connection with SQLAlchemy's record of it, when it runs in place."""
    inline = connection.driver_connection
    if isinstance(inline, InlineConnection):
        record.info[_DRIVER] = Driver(inline.raw, dialect)


def driver_of(connection: sa.Connection | AsyncConnection) -> Driver | None:
    """Return the driver's connection, for rendered statements inside a transaction.

    None on other databases, where the threaded driver is used, and while somebody listens to the
    statements of the engine, as tests do: then all of them go through SQLAlchemy.
    """
    begun = connection.sync_connection if isinstance(connection, AsyncConnection) else connection
    driver: Driver | None = None if begun is None else begun.info.get(_DRIVER)
    if begun is None or driver is None:
        return None
    listening = begun.engine.dispatch
    return None if listening.before_cursor_execute or listening.after_cursor_execute else driver


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
    def raw(self) -> sqlite3.Connection:
        """The connection of the standard library."""
        return self._conn

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
