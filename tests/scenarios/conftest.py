"""Worlds of real processes, one per database and test process, shared by the scenarios.

Every scenario has people, and so ledger entries, of its own; they share the hub. Stories that
break the hub start a world of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from benchmarks.soak import enrol_crowd, settings_on_postgresql
from hub.demo.world import World

#: one test process has all scenarios of a database, so that each world is started once
DATABASES = [
    pytest.param("sqlite", marks=pytest.mark.xdist_group("world-sqlite")),
    pytest.param("postgresql", marks=pytest.mark.xdist_group("world-postgresql")),
]


@pytest.fixture(scope="session", params=DATABASES)
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """Yield a world on SQLite or PostgreSQL, with so many users that the guard lets ours pass."""
    environment: dict[str, str] = {}
    if request.param == "postgresql":
        server: str = request.getfixturevalue("postgresql_server")
        environment = await settings_on_postgresql(server)
    started = World(tmp_path_factory.mktemp("world"), environment=environment, movable_clock=True)
    try:
        await started.start()
        await enrol_crowd(started)
        yield started
    finally:
        await started.stop()
