"""A table of the tests' own, and operations on it: what a feature's `store.py` would declare."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.database import Database
from runtime.errors import Conflict, Forbidden, Unavailable
from runtime.writer import Operation

#: metadata of its own: the tables of the hub stay what they are
metadata = sa.MetaData()
entries = sa.Table(
    "ledger_entries",
    metadata,
    sa.Column("tenant_id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("amount", sa.Integer, sa.CheckConstraint("amount > 0"), nullable=False),
)


class Entry(msgspec.Struct, frozen=True):
    """One line to write. The name decides what the handler does with it."""

    name: str
    amount: int = 1


class Receipt(msgspec.Struct, frozen=True):
    """What a written line answers: the batch it was in, and the sum it was written with."""

    name: str
    batch_size: int


async def create(database: Database) -> None:
    """Create the table."""
    async with database.transaction() as connection:
        await connection.run_sync(metadata.create_all)


async def names(database: Database) -> set[str]:
    """Return the names that were committed."""
    async with database.snapshot() as connection:
        return set(await connection.scalars(sa.select(entries.c.name)))


async def write(connection: AsyncConnection, batch: Sequence[Entry]) -> list[Receipt]:
    """Write the lines; a name may ask for trouble.

    `poison-…` raises, `taken-…` and `forbidden-…` are refused, `away-…` is unavailable.
    """
    for entry in batch:
        match entry.name.partition("-")[0]:
            case "poison":
                raise ValueError("a bug of the handler")
            case "taken":
                raise Conflict("The name is taken.", pointers=(("/name", entry.name),))
            case "forbidden":
                raise Forbidden("You may not.", scope="ledger.write")
            case "away":
                raise Unavailable("Somebody is away.", retry_after_s=7.0)
    rows = [{"tenant_id": "default", "name": entry.name, "amount": entry.amount} for entry in batch]
    await connection.execute(sa.insert(entries), rows)
    return [Receipt(name=entry.name, batch_size=len(batch)) for entry in batch]


async def count(connection: AsyncConnection, batch: Sequence[str]) -> list[int]:
    """Return for each name how many committed or pending lines begin with it."""
    return [
        await connection.scalar(
            sa.select(sa.func.count())
            .select_from(entries)
            .where(entries.c.tenant_id == "default", entries.c.name.startswith(name))
        )
        or 0
        for name in batch
    ]


async def hang(connection: AsyncConnection, batch: Sequence[str]) -> list[None]:
    """Write and then never come back."""
    await write(connection, [Entry(name=name) for name in batch])
    await asyncio.Event().wait()
    return []


async def echo(_connection: AsyncConnection, batch: Sequence[bytes]) -> list[bytes]:
    """Return what came."""
    return list(batch)


WRITE = Operation(name="ledger.write", item=Entry, result=Receipt, handle=write, wakes=("tasks",))
COUNT = Operation(name="ledger.count", item=str, result=int, handle=count)
HANG = Operation(name="ledger.hang", item=str, result=type(None), handle=hang)
ECHO = Operation(name="ledger.echo", item=bytes, result=bytes, handle=echo)
OPERATIONS = (WRITE, COUNT, HANG, ECHO)
