"""Another process that writes: `python -m tests.runtime.busy_writer DATABASE_URL PREFIX COUNT`.

It prints `ready`, waits for a line on standard input, and commits COUNT transactions.
"""

from __future__ import annotations

import asyncio
import sys

from runtime.database import Database
from tests.runtime import ledger


async def write(database_url: str, prefix: str, count: int) -> None:
    """Commit `count` lines, one transaction each."""
    database = Database.connect(database_url)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    for number in range(count):
        async with database.transaction() as connection:
            await ledger.write(connection, [ledger.Entry(f"{prefix}{number}")])
    await database.close()


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2], int(sys.argv[3])))
