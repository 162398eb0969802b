"""A poll that waits is answered for what its token is worth by then."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
import sqlalchemy as sa

import transmitters.service
import transmitters.store
from hub.oauth.tokens import LIFETIME_S
from runtime.clock import epoch_s
from tests.hub.conftest import DEFAULT, ONE_ENGINE, Hub
from tests.hub.story import SESSION_REVOKED
from tests.hub.test_oauth import Party, party
from transmitters.model import EventToPublish

pytestmark = ONE_ENGINE
LIMIT_S = 20.0
#: turns of the event loop in which a poll is let in
LOOKS_MAX = 100_000


@pytest.fixture
async def app(hub: Hub) -> Party:
    return await party(hub)


async def _waiting_poll(
    hub: Hub, http: httpx2.AsyncClient
) -> tuple[str, asyncio.Task[httpx2.Response]]:
    """Begin a poll that finds nothing; return its stream, and the poll once it was let in."""
    made = await http.post("/ssf/streams", json={"events_requested": [SESSION_REVOKED]})
    stream_id = made.json()["stream_id"]
    await _publish(hub)
    (jti,) = (await http.post(f"/ssf/poll/{stream_id}", json={})).json()["sets"]
    waiting = asyncio.create_task(http.post(f"/ssf/poll/{stream_id}", json={"ack": [jti]}))
    # What it acknowledges is written before it waits.
    for _ in range(LOOKS_MAX):
        if await _state_of(hub, jti) == "delivered":
            return stream_id, waiting
        await asyncio.sleep(0)
    raise AssertionError("the poll was not let in")


async def _state_of(hub: Hub, jti: str) -> str:
    table = transmitters.store.deliveries
    async with hub.database.snapshot() as connection:
        state = await connection.scalar(sa.select(table.c.state).where(table.c.jti == jti))
    return str(state)


async def _publish(hub: Hub) -> None:
    revoked = EventToPublish(
        tenant_id=DEFAULT,
        event_type=SESSION_REVOKED,
        payload={"event_timestamp": epoch_s(hub.clock.now())},
        subjects=({"format": "email", "email": "rosa.lind@green.example"},),
        ordering_key="rosa",
    )
    async with hub.database.transaction() as connection:
        await transmitters.service.publish(connection, [revoked], hub.clock.now())
    hub.node.notifier.wake("polls")


@pytest.mark.requirement("INT-28", "POLL-19")
@pytest.mark.parametrize("how", ["revoked", "expired", "narrowed"])
async def test_a_token_that_ends_while_its_poll_waits_is_handed_nothing(
    hub: Hub, app: Party, how: str
) -> None:
    token = await app.token()
    async with hub.client(token) as http:
        stream_id, waiting = await _waiting_poll(hub, http)
        if how == "revoked":
            await app.post("/oauth/revoke", token)
        elif how == "expired":
            hub.clock.advance(LIFETIME_S + 1)
        else:
            async with hub.client(await hub.token()) as admin:
                path = f"/admin/v1/clients/{app.client_id}"
                answer = await admin.patch(path, json={"scopes": ["risk.read"]})
                assert answer.status_code == 200, answer.text
        await hub.node.feed.refresh()
        await _publish(hub)
        async with asyncio.timeout(LIMIT_S):
            refused = await waiting
    assert refused.status_code == (403 if how == "narrowed" else 401), refused.text
    async with hub.database.snapshot() as connection:
        table = transmitters.store.deliveries
        of_stream = sa.select(table.c.attempts).where(
            table.c.stream_id == stream_id, table.c.state == "pending"
        )
        # It was hidden from nobody for that.
        assert list(await connection.scalars(of_stream)) == [0]


async def test_a_token_that_is_still_good_is_handed_what_its_poll_waited_for(
    hub: Hub, app: Party
) -> None:
    async with hub.client(await app.token()) as http:
        _, waiting = await _waiting_poll(hub, http)
        await _publish(hub)
        async with asyncio.timeout(LIMIT_S):
            answer = await waiting
    assert (answer.status_code, len(answer.json()["sets"])) == (200, 1)
