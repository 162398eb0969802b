"""The one way to the database: `Database.transaction()` to write, `Database.snapshot()` to read.

SQLite (WAL, synchronous=FULL) is the embedded default, PostgreSQL serves several nodes. Both are
driven by SQLAlchemy Core; every table is declared on `metadata` by some package's `store.py`.

INVARIANT: a transaction never spans outbound HTTP. `in_transaction()` lets the outbound client
assert it.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime
from itertools import islice
from typing import Any, Final, Literal, Protocol

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runtime.columns import UTCDateTime as UTCDateTime  # noqa: PLC0414 - stores find it here
from runtime.sqlite import InlineConnection, driver_of, keep_driver
from runtime.statements import NewRows, Write

SQLITE_BUSY_TIMEOUT_MS: Final = 10_000
SQLITE_CACHE_KIB: Final = 65_536
SQLITE_WAL_AUTOCHECKPOINT_PAGES: Final = 4_000
POOL_SIZE: Final = 5
#: write connections of a process to one SQLite file: transactions take turns
WRITERS: Final = 1
POOL_WAIT_S: Final = 10.0
STATEMENT_TIMEOUT_MS: Final = 30_000
#: rows of one deletion of what is too old; the next one goes on
DELETED_AT_ONCE_MAX: Final = 1_000
#: tenant of rows that belong to the installation: leases and the like
SYSTEM_TENANT: Final = "*"

metadata: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


class _Span:
    """One use of a connection: of which database, who began it, and whether it is over."""

    __slots__ = ("begun_by", "database", "intent", "open")

    def __init__(self, database: Database, intent: str) -> None:
        self.database = database
        self.begun_by = asyncio.current_task()
        self.intent = intent
        self.open = True


_span: ContextVar[_Span | None] = ContextVar("span", default=None)


#: JSON document: text in SQLite, jsonb in PostgreSQL. None is SQL NULL.
JSONDocument = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)


def tenant_column() -> sa.Column[str]:
    """Return the first column of every primary key (design §4.2)."""
    return sa.Column("tenant_id", sa.String(64), primary_key=True)


def id_column(name: str, *, primary_key: bool = True) -> sa.Column[str]:
    """Return a column for an id of `runtime.ids`."""
    return sa.Column(name, sa.String(64), primary_key=primary_key, nullable=False)


class Database:
    """A pool of connections to one database."""

    def __init__(self, engine: AsyncEngine, *, reader: AsyncEngine | None = None) -> None:
        self._engine = engine
        self._reader = reader or engine
        self._by_intent = {
            "read": self._reader.execution_options(signalhub_intent="read"),
            "write": engine.execution_options(signalhub_intent="write"),
        }
        self.dialect: Literal["sqlite", "postgresql"] = (
            "postgresql" if engine.dialect.name == "postgresql" else "sqlite"
        )
        # SQLite has one writer; queueing in the process is fair and does not spin on SQLITE_BUSY.
        self._write_turn = asyncio.Lock() if self.dialect == "sqlite" else None

    @classmethod
    def connect(
        cls, url: str, *, pool_size: int = POOL_SIZE, owns_writes: bool = False
    ) -> Database:
        """Open `sqlite:///path` or `postgresql://…`. Raises ValueError on another scheme.

        owns_writes: this process is the SQLite file's hot writer, so that its writes hardly ever
        wait for a lock and run in the event loop (`runtime.sqlite`).
        """
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            parsed = parsed.set(drivername="sqlite+aiosqlite")
            reader = _sqlite_engine(parsed, pool_size, inline=True)
            engine = _sqlite_engine(parsed, WRITERS, inline=owns_writes)
            return cls(engine, reader=reader)
        if backend == "postgresql":
            return cls(_postgresql_engine(parsed.set(drivername="postgresql+asyncpg"), pool_size))
        raise ValueError(f"DATABASE_URL: {backend!r} is not supported: use sqlite or postgresql")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection inside a write transaction: commit at the end, roll back on error.

        On SQLite it begins IMMEDIATE, so a conflict shows at the start and never in the middle.
        Raises RuntimeError inside another one of the same task, which would wait for itself.
        """
        if _writes_already(self):
            raise RuntimeError("a transaction inside a transaction")
        if self._write_turn is None:
            async with self._begun("write") as connection:
                yield connection
        else:
            async with self._write_turn, self._begun("write") as connection:
                yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for reading; what it sees is consistent within one statement."""
        async with self._begun("read") as connection:
            yield connection

    @asynccontextmanager
    async def _begun(self, intent: str) -> AsyncIterator[AsyncConnection]:
        span = _Span(self, intent)
        marker = _span.set(span)
        try:
            async with _connected(self._by_intent[intent]) as connection, connection.begin():
                yield connection
        finally:
            # Tasks begun inside carry the span with them; for them too it is over now.
            span.open = False
            _span.reset(marker)

    async def close(self) -> None:
        """Close all connections. Raises nothing."""
        await self._engine.dispose()
        if self._reader is not self._engine:
            await self._reader.dispose()

    @property
    def engine(self) -> AsyncEngine:
        """The engine that writes, for a database that joins its transactions, and for tests."""
        return self._engine

    @property
    def reader(self) -> AsyncEngine:
        """The engine that reads: on SQLite another one than the writing one. For tests."""
        return self._reader


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    connection = await engine.connect()
    in_place = driver_of(connection) is not None
    try:
        yield connection
    finally:
        if in_place:
            # It cannot be cancelled half-way, so it needs no task of its own.
            await connection.close()
        else:
            await asyncio.shield(asyncio.create_task(connection.close()))


def _writes_already(database: Database) -> bool:
    span = _span.get()
    return (
        span is not None
        and span.open
        and span.intent == "write"
        and span.database is database
        and span.begun_by is asyncio.current_task()
    )


def in_transaction() -> bool:
    """Return whether the running task, or the one that began it, holds a connection now."""
    span = _span.get()
    return span is not None and span.open


def dialect_insert(
    connection: AsyncConnection, table: sa.Table
) -> postgresql.Insert | sqlite.Insert:
    """Return the dialect's INSERT, which knows `on_conflict_do_nothing` and `…_do_update`."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


async def insert_new(
    connection: AsyncConnection, table: sa.Table, rows: list[dict[str, Any]], key: str
) -> set[str]:
    """Insert rows, skipping those that break a uniqueness rule; return `key` of the inserted ones.

    One batch never fails because of a duplicate (contracts §1). Raises database errors otherwise.
    """
    if not rows:
        return set()
    if connection.dialect.name == "sqlite":
        # executemany costs half of INSERT … RETURNING but says only how many rows were new. That
        # is enough unless there is a repeat, which is rare; then it is undone and done the long
        # way. (Looking the keys up afterwards would take an older row of that key for a new one.)
        async with _attempt(connection) as attempt:
            if await _new_rows(table, tuple(rows[0])).run(connection, rows) == len(rows):
                return {row[key] for row in rows}
            await attempt.rollback()
        statement = dialect_insert(connection, table).on_conflict_do_nothing()
        found = await connection.execute(statement.returning(table.c[key]), rows)
        return set(found.scalars())
    return set(await _new_rows_as_arrays(table, tuple(rows[0]), key).run(connection, rows))


class _Rollback(Protocol):
    async def rollback(self) -> None: ...


@asynccontextmanager
async def _attempt(connection: AsyncConnection) -> AsyncIterator[_Rollback]:
    """Begin a part of a transaction that can be undone alone; an error undoes it."""
    driver = driver_of(connection)
    if driver is None:
        async with connection.begin_nested() as attempt:
            yield attempt
    else:
        async with driver.savepoint() as savepoint:
            yield savepoint


@functools.cache
def _new_rows(table: sa.Table, names: tuple[str, ...]) -> Write:
    return Write({"sqlite": sqlite.insert(table).on_conflict_do_nothing()}, names)


@functools.cache
def _new_rows_as_arrays(table: sa.Table, names: tuple[str, ...], key: str) -> NewRows:
    return NewRows(table, names, key)


async def serialize(connection: AsyncConnection, *names: str) -> None:
    """Let transactions that name the same thing run one after the other, until this one ends.

    SQLite has one writer anyway; PostgreSQL takes an advisory lock on a hash of the names.
    """
    if connection.dialect.name == "postgresql":
        digest = hashlib.blake2b("\0".join(names).encode(), digest_size=8).digest()
        key = int.from_bytes(digest, signed=True)
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


async def delete_before(
    connection: AsyncConnection,
    column: sa.Column[Any],
    before: datetime,
    *,
    also: sa.ColumnElement[bool] | None = None,
    limit: int = DELETED_AT_ONCE_MAX,
) -> int:
    """Delete rows whose `column` holds a time before a moment, at most `limit`; return how many.

    also: what has to be true of them besides. Of all tenants, so that only system queries may call
    it.
    """
    table = column.table
    key: tuple[Any, ...] = tuple(table.primary_key.columns)
    old = sa.select(*key).where(column < before).limit(limit)
    if also is not None:
        old = old.where(also)
    result = await connection.execute(sa.delete(table).where(sa.tuple_(*key).in_(old)))
    return int(result.rowcount)


def chunks(values: Iterable[Any], size: int) -> Iterable[list[Any]]:
    """Split values into lists of at most `size`, for statements with bounded parameters."""
    left = iter(values)
    while batch := list(islice(left, size)):
        yield batch


def _json_dumps(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _sqlite_engine(url: sa.URL, pool_size: int, *, inline: bool) -> AsyncEngine:
    driver = {"async_creator_fn": InlineConnection.open} if inline else {}
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        poolclass=sa.pool.AsyncAdaptedQueuePool,
        connect_args={
            "timeout": SQLITE_BUSY_TIMEOUT_MS / 1000,
            "isolation_level": None,
            **driver,
        },
        json_serializer=_json_dumps,
        json_deserializer=msgspec.json.decode,
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, record: Any) -> None:
        keep_driver(connection, record, engine.dialect)
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={SQLITE_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            # FULL, not NORMAL: an acknowledged signal survives a power cut (design §4.3).
            "synchronous=FULL",
            f"cache_size=-{SQLITE_CACHE_KIB}",
            f"wal_autocheckpoint={SQLITE_WAL_AUTOCHECKPOINT_PAGES}",
            "temp_store=MEMORY",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        intent = connection.get_execution_options().get("signalhub_intent")
        text = "BEGIN" if intent == "read" else "BEGIN IMMEDIATE"
        driver = driver_of(connection)
        if driver is None:
            connection.exec_driver_sql(text)
        else:
            driver.run(text)

    return engine


def _postgresql_engine(url: sa.URL, pool_size: int) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=POOL_WAIT_S,
        pool_pre_ping=True,
        connect_args={
            "server_settings": {
                "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                "timezone": "UTC",
                "application_name": "signalhub",
                # A plan that was made when a table was empty, and kept, reads all of a tenant's
                # rows to find one, until the table's first ANALYZE.
                "plan_cache_mode": "force_custom_plan",
            }
        },
        json_serializer=_json_dumps,
        json_deserializer=msgspec.json.decode,
    )
