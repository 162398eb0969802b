"""Who holds locks at the same time, in several processes on PostgreSQL, waits in no circle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from hub.operations import LOG_OUT_SESSION, PUT_SESSION
from hub.pipeline import lock_tenants
from risk.baselines.model import Occurrence
from risk.baselines.service import RECORD_GOOD, RecordGood, WithdrawSession, withdraw_sessions
from risk.inline.orders import SessionLogout
from runtime.database import Database, serialize
from runtime.notify import Notifier
from runtime.writer import LocalWriter
from tests.hub.conftest import DEFAULT, Hub
from tests.hub.story import IDP, begin
from tests.hub.test_inline import SID, Gateway
from tests.hub.test_session_races import put_of
from tests.runtime.background import running

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
LIMIT_S = 20.0
_WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    """A tenant whose user Rosa has a baseline."""
    story = await begin(hub)
    await hub.node.writer.submit(RECORD_GOOD, good(hub, story.ids["rosa"]))
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


def good(hub: Hub, user_id: str) -> RecordGood:
    seen = Occurrence(at=hub.clock.now(), ip="192.0.2.7")
    return RecordGood(tenant_id=DEFAULT, user_id=user_id, seen=seen)


async def until_waiting(database: Database, count: int) -> None:
    """Return when so many transactions wait for others."""
    found = 0
    while found < count:
        async with database.snapshot() as connection:
            found = await connection.scalar(_WAITING) or 0


@asynccontextmanager
async def no_deadlock() -> AsyncIterator[None]:
    """Nobody was undone so that another one could go on, here inside."""
    before = REGISTRY.get_sample_value("hub_runtime_deadlocks_total")
    async with asyncio.timeout(LIMIT_S):
        yield
    assert REGISTRY.get_sample_value("hub_runtime_deadlocks_total") == before


def process(hub: Hub) -> LocalWriter:
    """Return the writer of another process."""
    return LocalWriter(hub.database, Notifier())


async def test_two_processes_take_the_same_operations_in_another_order(gateway: Gateway) -> None:
    hub, rosa = gateway.story.hub, gateway.story.ids["rosa"]
    one, other = process(hub), process(hub)
    async with no_deadlock():
        async with hub.database.transaction() as connection:
            # The pipeline is at work for the tenant, so that both stand before its lock.
            await lock_tenants(connection, {DEFAULT})
            first = [
                other.enqueue(PUT_SESSION, put_of(gateway, "b")),
                other.enqueue(RECORD_GOOD, good(hub, rosa)),
            ]
            second = [
                one.enqueue(RECORD_GOOD, good(hub, rosa)),
                one.enqueue(PUT_SESSION, put_of(gateway, "a")),
            ]
            others = asyncio.create_task(other.run())
            await until_waiting(hub.database, 1)
            ones = asyncio.create_task(one.run())
            await until_waiting(hub.database, 2)
        await asyncio.gather(*first, *second)
    for run in (others, ones):
        run.cancel()
    await asyncio.gather(others, ones, return_exceptions=True)


async def test_the_pipeline_goes_on_from_the_tenant_to_a_baseline(gateway: Gateway) -> None:
    """It withdraws what a hijacked session taught; a mixed batch came from the baseline."""
    hub, rosa = gateway.story.hub, gateway.story.ids["rosa"]
    api = process(hub)
    withdrawn = WithdrawSession(tenant_id=DEFAULT, user_id=rosa, session="s", at=hub.clock.now())
    async with no_deadlock(), running(api.run()):
        async with hub.database.transaction() as connection:
            await lock_tenants(connection, {DEFAULT})
            batch = [
                api.enqueue(RECORD_GOOD, good(hub, rosa)),
                api.enqueue(PUT_SESSION, put_of(gateway, "a")),
            ]
            await until_waiting(hub.database, 1)
            await withdraw_sessions(connection, [withdrawn])
        await asyncio.gather(*batch)


async def test_an_admins_write_goes_on_from_the_audit_to_the_tenant(gateway: Gateway) -> None:
    """A mixed batch came from the tenant, and the admin was answered 500."""
    hub, story = gateway.story.hub, gateway.story
    logout = SessionLogout(
        tenant_id=DEFAULT,
        user_id=story.ids["rosa"],
        session_id=(await story.get(f"/v1/sessions/{SID}?iss={IDP}"))["session_id"],
        iss=IDP,
        sid=SID,
        context_key="k",
        app_ids=None,
        at=hub.clock.now(),
        of_user=True,
    )
    api = process(hub)
    body = {"identifiers": [{"format": "email", "email": "new@customer.example"}]}
    async with no_deadlock(), running(api.run()):
        async with hub.database.transaction() as connection:
            await lock_tenants(connection, {DEFAULT})
            batch = [
                api.enqueue(PUT_SESSION, put_of(gateway, "a")),
                api.enqueue(LOG_OUT_SESSION, logout),
            ]
            await until_waiting(hub.database, 1)
            asking = asyncio.create_task(story.admin.post("/admin/v1/users", json=body))
            await until_waiting(hub.database, 2)
        assert (await asking).status_code == 201
        await asyncio.gather(*batch)


async def test_an_admins_write_that_was_undone_is_done_again(gateway: Gateway) -> None:
    """Whoever is the victim, an admin is answered; here somebody takes the locks the wrong way."""
    hub, story = gateway.story.hub, gateway.story
    body = {"identifiers": [{"format": "email", "email": "new@customer.example"}]}
    async with asyncio.timeout(LIMIT_S):
        # The admin has waited for longer, and is undone; on a machine that stands still, this is.
        with suppress(sa.exc.DBAPIError):
            async with hub.database.transaction() as connection:
                await lock_tenants(connection, {DEFAULT})
                asking = asyncio.create_task(story.admin.post("/admin/v1/users", json=body))
                await until_waiting(hub.database, 1)
                await serialize(connection, "audit", DEFAULT)
        assert (await asking).status_code == 201
