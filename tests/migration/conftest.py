"""Databases without any table, once per engine."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from runtime.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Yield a database without any table."""
    if request.param == "sqlite":
        database = Database.connect(f"sqlite:///{tmp_path}/empty.db")
        yield database
        await database.close()
        return
    server = sa.make_url(request.getfixturevalue("postgresql_server"))
    name = f"m_{secrets.token_hex(8)}"
    await _administer(server, f'CREATE DATABASE "{name}"')
    database = Database.connect(server.set(database=name).render_as_string(hide_password=False))
    yield database
    await database.close()
    await _administer(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _administer(server: sa.URL, statement: str) -> None:
    engine = create_async_engine(
        server.set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT"
    )
    async with engine.connect() as connection:
        await connection.execute(sa.text(statement))
    await engine.dispose()
