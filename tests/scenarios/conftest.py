"""Worlds of real processes, one per database and test process, shared by the scenarios.

Every scenario has people, and so ledger entries, of its own; they share the hub. Stories that
break the hub start a world of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from _pytest.nodeid import NodeId

from benchmarks.kills import enrol_crowd, settings_on_postgresql
from hub.demo.processes import HubProcess
from hub.demo.world import World
from tests.scenarios import receiver_runs, transmitter_runs

#: one test process has all scenarios of a database, so that each world is started once
DATABASES = [
    pytest.param("sqlite", marks=pytest.mark.xdist_group("world-sqlite")),
    pytest.param("postgresql", marks=pytest.mark.xdist_group("world-postgresql")),
]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let `--dist loadgroup` see the groups.

    pytest-xdist 3.8 hands a group to its scheduler by writing `item._nodeid`, which pytest 9.2 does
    not read any more, so that every test would get a world of its own. Does nothing once either
    of the two has changed.
    """
    if not config.getoption("loadgroup", default=False):
        return
    for item in items:
        group = item.get_closest_marker("xdist_group")
        if group is None or item.nodeid.endswith(f"@{group.args[0]}"):
            continue
        if isinstance(getattr(item, "_id", None), NodeId):
            item._id = NodeId.parse(f"{item.nodeid}@{group.args[0]}")


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
    assert isinstance(started.hub, HubProcess)
    assert not started.hub.troubles()


@dataclass(frozen=True, slots=True, kw_only=True)
class Conformance:
    """What the conformance suite said of the hub on one database, in both of its roles."""

    receiver: dict[str, receiver_runs.Run]
    transmitter: dict[str, transmitter_runs.Run]


@pytest.fixture(scope="session")
async def conformance_runs(
    postgresql_server: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Conformance]:
    """Run the suite on both databases and in both roles, all at once: most of it is waiting."""
    on_postgresql = [await settings_on_postgresql(postgresql_server) for _ in range(2)]
    on_sqlite: list[dict[str, str]] = [{}, {}]
    sqlite, postgresql = await asyncio.gather(
        _conformance(tmp_path_factory, on_sqlite), _conformance(tmp_path_factory, on_postgresql)
    )
    return {"sqlite": sqlite, "postgresql": postgresql}


async def _conformance(
    folders: pytest.TempPathFactory, settings: list[dict[str, str]]
) -> Conformance:
    """Run the suite in both roles, against a hub each. settings: of these hubs."""
    receiver, transmitter = await asyncio.gather(
        receiver_runs.run_all(folders.mktemp("receiver"), settings[0]),
        transmitter_runs.run_all(folders.mktemp("transmitter"), settings[1]),
    )
    return Conformance(receiver=receiver, transmitter=transmitter)


@pytest.fixture(
    params=[
        pytest.param(database, marks=pytest.mark.xdist_group("conformance"))
        for database in ("sqlite", "postgresql")
    ]
)
def conformance(
    request: pytest.FixtureRequest, conformance_runs: dict[str, Conformance]
) -> Conformance:
    """Return what the suite said of the hub on one database."""
    return conformance_runs[request.param]
