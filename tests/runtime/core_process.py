"""A core process for tests: `python -m tests.runtime.core_process SOCKET DATABASE_URL`.

It prints `ready` when it listens, and works until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from runtime.database import Database
from runtime.ipc import CoreServer
from runtime.notify import Notifier
from runtime.writer import LocalWriter, index_operations
from tests.runtime import ledger


async def serve(socket: Path, database_url: str) -> None:
    """Listen on `socket` and commit into the database, until killed."""
    database, notifier = Database.connect(database_url), Notifier()
    writer = LocalWriter(database, notifier)
    core = CoreServer(writer, notifier, index_operations(ledger.OPERATIONS))
    await core.serve(socket)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await writer.run()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
