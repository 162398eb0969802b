"""Decisions about sign-ins and sessions: the hub's own denial, whatever else is down."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from typing_extensions import override

import actions.store
from actions.model import CONTAINMENTS_KIND, Action, Containment, ContainmentState
from hub.app import make_app
from hub.denied import DeniedUsers
from hub.node import open_node
from risk.verdict import Decision, Scope, Verdict, strongest
from runtime.changes import ChangeFeed, note_changes
from runtime.clock import SystemClock
from runtime.database import Database
from runtime.errors import ConnectFailed
from runtime.notify import Notifier
from runtime.outbound import OutboundAnswer, OutboundRequest
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub, Outside, config_for
from tests.hub.story import IDP, ROSA, TIM, Story, begin

LIMIT_S = 20.0
ALLOWED = {
    "decision": "ALLOW",
    "scope": "user",
    "reasons": [],
    "mode": "enforce",
    "cache_ttl_ms": 0,
}
QUARANTINED = {
    "decision": "DENY",
    "scope": "user",
    "reasons": ["quarantined"],
    "mode": "enforce",
    "cache_ttl_ms": 0,
    "trace_id": "txn-1",
}


class Unreachable(Outside):
    """Nobody outside can be reached."""

    @override
    async def send(self, request: OutboundRequest) -> OutboundAnswer:
        self.requests.append(request)
        raise ConnectFailed("no route to host")


@dataclass
class Gate:
    """The IdP of a story, which asks before it lets somebody in or on."""

    story: Story
    idp: httpx2.AsyncClient

    async def sign_in(self, user: object, **others: object) -> dict[str, Any]:
        answer = await self.idp.post("/v1/sign-ins/evaluate", json={"user": user, **others})
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        decided: dict[str, Any] = answer.json()
        return decided

    async def session(self, sid: str) -> dict[str, Any]:
        answer = await self.idp.post(f"/v1/sessions/{sid}/evaluate")
        assert answer.status_code == 200, answer.text
        decided: dict[str, Any] = answer.json()
        return decided

    async def contain_rosa(self) -> None:
        """Play the story until the hub is at rest and this process has heard of it."""
        await self.story.play()
        await self.story.hub.node.changes.refresh()

    async def until_rosa_is(self, decision: str) -> None:
        async with asyncio.timeout(LIMIT_S):
            while (await self.sign_in(f"email:{ROSA}"))["decision"] != decision:  # noqa: ASYNC110 - asking is the point
                await asyncio.sleep(0)  # the feed's turn


@pytest.fixture
async def gate(hub: Hub) -> AsyncIterator[Gate]:
    story = await begin(hub)
    token = await hub.token("sessions.evaluate", app_id=story.ids["idp"])
    async with hub.client(token) as idp:
        yield Gate(story, idp)
    await story.admin.aclose()


# --- contained users ----------------------------------------------------------------------------


async def test_a_contained_user_is_denied_and_a_bystander_is_not(gate: Gate) -> None:
    assert await gate.sign_in(f"email:{ROSA}") == ALLOWED
    await gate.contain_rosa()

    assert await gate.sign_in(f"email:{ROSA}") == QUARANTINED
    assert await gate.sign_in(f"email:{TIM}") == ALLOWED
    assert await gate.session("sid-rosa") == {
        **QUARANTINED,
        "decision": "TERMINATE",
        "scope": "session",
        "reasons": ["session_ended", "quarantined"],
    }
    assert await gate.session("sid-tim") == {**ALLOWED, "scope": "session"}


async def test_the_denial_does_not_wait_for_an_idp_that_cannot_be_reached(gate: Gate) -> None:
    gate.story.hub.outside = Unreachable()
    await gate.contain_rosa()

    assert await gate.sign_in(f"email:{ROSA}") == QUARANTINED
    assert any(request.url.startswith(IDP) for request in gate.story.hub.outside.requests)


async def test_the_pipelines_commit_is_heard_of_without_being_asked_for(gate: Gate) -> None:
    await gate.story.play()
    await gate.until_rosa_is("DENY")


async def test_a_released_user_is_allowed_again(gate: Gate) -> None:
    await gate.contain_rosa()
    gate.story.hub.clock.advance(60)
    await gate.story.push(compliant=True)
    await gate.story.hub.settle()
    await gate.story.hub.node.changes.refresh()

    assert await gate.sign_in(f"email:{ROSA}") == ALLOWED


async def test_an_admins_word_denies_as_well(gate: Gate) -> None:
    said = await gate.story.admin.put(
        f"/api/v1/users/{gate.story.ids['tim']}/risk", json={"riskLevel": "HIGH"}
    )
    assert said.is_success
    await gate.story.hub.node.changes.refresh()

    decided = await gate.sign_in(f"email:{TIM}")
    assert (decided["decision"], decided["reasons"]) == ("DENY", ["quarantined"])


async def test_a_user_is_denied_by_whatever_name(gate: Gate) -> None:
    await gate.contain_rosa()
    identifier = {"format": "iss_sub", "iss": IDP, "sub": "rosa/1"}
    stranger = {"format": "email", "email": "nobody@customer.example"}
    for name in (
        gate.story.ids["rosa"],
        "ext:ext-rosa",
        f"iss_sub:{IDP}|rosa/1",
        identifier,
        {"format": "aliases", "identifiers": [stranger, identifier]},
    ):
        assert await gate.sign_in(name) == QUARANTINED, name


async def test_another_process_hears_of_it(gate: Gate, database_url: str) -> None:
    async with open_node(config_for(database_url, index=1)) as node:
        transport = httpx2.ASGITransport(make_app(node, Outside()))
        async with httpx2.AsyncClient(
            transport=transport, base_url=ISSUER, headers=gate.idp.headers
        ) as idp:
            elsewhere = Gate(gate.story, idp)
            assert await elsewhere.sign_in(f"email:{ROSA}") == ALLOWED
            await gate.story.play()
            await elsewhere.until_rosa_is("DENY")


async def test_another_tenant_is_not_affected(gate: Gate) -> None:
    hub = gate.story.hub
    await gate.contain_rosa()
    await hub.add_tenant("green")
    async with hub.client(await hub.token(tenant="green"), tenant="green") as green:
        user = {"identifiers": [{"format": "email", "email": ROSA}]}
        assert (await green.post("/admin/v1/users", json=user)).status_code == 201

        by_name = await green.post("/v1/sign-ins/evaluate", json={"user": f"email:{ROSA}"})
        by_id = await green.post("/v1/sign-ins/evaluate", json={"user": gate.story.ids["rosa"]})
        sid = "sid-rosa"
        session = await green.post(f"/v1/sessions/{sid}/evaluate", json={"iss": IDP})

    assert by_name.json() == ALLOWED
    assert by_id.json()["reasons"] == ["user_unknown"]
    assert session.json()["reasons"] == ["session_unknown"]


# --- users and sessions nobody knows, and sessions that are over --------------------------------


@ONE_ENGINE
async def test_a_name_nobody_knows_is_allowed_and_said_to_be_unknown(gate: Gate) -> None:
    unknown = {**ALLOWED, "reasons": ["user_unknown"]}
    assert await gate.sign_in("email:first.day@customer.example") == unknown
    assert await gate.sign_in({"format": "opaque", "id": "who"}) == unknown


@ONE_ENGINE
async def test_an_id_of_the_hub_that_does_not_exist_is_denied(gate: Gate) -> None:
    decided = await gate.sign_in("usr_01JD0000000000000000000000")
    assert decided == {**ALLOWED, "decision": "DENY", "reasons": ["user_unknown"]}


@ONE_ENGINE
async def test_an_unknown_session_is_denied(gate: Gate) -> None:
    assert await gate.session("sid-of-nobody") == {
        **ALLOWED,
        "decision": "DENY",
        "scope": "session",
        "reasons": ["session_unknown"],
    }


@ONE_ENGINE
async def test_a_session_that_is_over_is_terminated(gate: Gate) -> None:
    now = gate.story.hub.clock.now()
    async with gate.story.hub.client(gate.story.tokens["idp"]) as idp:
        for sid in ("short/evaluate", "left"):
            body = {
                "user": gate.story.ids["tim"],
                "started_at": now.isoformat(),
                "expires_at": (now + timedelta(hours=1)).isoformat(),
            }
            assert (await idp.put(f"/v1/sessions/{sid}", json=body)).status_code == 201
        assert (await gate.session("short/evaluate"))["decision"] == "ALLOW"
        assert (await idp.delete("/v1/sessions/left")).status_code == 204
    over = {**ALLOWED, "decision": "TERMINATE", "scope": "session"}

    assert await gate.session("left") == {**over, "reasons": ["session_ended"]}
    gate.story.hub.clock.advance(3600)
    assert await gate.session("short/evaluate") == {**over, "reasons": ["session_expired"]}


@ONE_ENGINE
async def test_the_ended_session_of_a_contained_user_is_terminated_for_both_reasons(
    gate: Gate,
) -> None:
    await gate.contain_rosa()
    sid = "sid-rosa"
    async with gate.story.hub.client(gate.story.tokens["idp"]) as idp:
        assert (await idp.delete(f"/v1/sessions/{sid}")).status_code == 204

    decided = await gate.session(sid)
    assert (decided["decision"], decided["scope"]) == ("TERMINATE", "session")
    assert decided["reasons"] == ["session_ended", "quarantined"]


def test_the_strongest_decision_counts_and_the_widest_among_equals() -> None:
    allow = Verdict(decision=Decision.ALLOW, scope=Scope.USER, reasons=("seen",))
    app = Verdict(decision=Decision.DENY, scope=Scope.APP, reasons=("app", "seen"))
    user = Verdict(decision=Decision.DENY, scope=Scope.USER, reasons=("user",), trace_id="t-1")
    decided = strongest([allow, app, user])
    assert (decided.decision, decided.scope) == (Decision.DENY, Scope.USER)
    assert decided.reasons == ("user", "app", "seen")
    assert decided.trace_id == "t-1"


# --- requests -----------------------------------------------------------------------------------


@ONE_ENGINE
async def test_unknown_members_are_ignored(gate: Gate) -> None:
    more = {"session": {"ip": 7}, "ip_chains": ["198.51.100.24"], "context": None}
    assert await gate.sign_in(f"email:{TIM}", **more) == ALLOWED


@ONE_ENGINE
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"usr_1"',
        b"{}",
        b'{"user": null}',
        b'{"user": 7}',
        b'{"user": "rosa"}',
        b'{"user": ["email:a@b.example"]}',
        b'{"user": {"format": "email"}}',
        b'{"user": {"user": {"format": "email", "email": "a@b.example"}}}',
        b"\xff",
    ],
)
async def test_a_sign_in_without_a_readable_user_is_400(gate: Gate, body: bytes) -> None:
    answer = await gate.idp.post("/v1/sign-ins/evaluate", content=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


@ONE_ENGINE
@pytest.mark.parametrize("body", [b"{", b"[]", b"7"])
async def test_a_session_question_that_is_no_object_is_400(gate: Gate, body: bytes) -> None:
    answer = await gate.idp.post("/v1/sessions/sid-rosa/evaluate", content=body)
    assert answer.status_code == 400


@ONE_ENGINE
async def test_an_app_asks_about_its_own_sessions_and_others_name_the_issuer(gate: Gate) -> None:
    foreign = {"iss": "https://other.example"}
    answer = await gate.idp.post("/v1/sessions/sid-rosa/evaluate", json=foreign)
    assert answer.status_code == 403
    async with gate.story.hub.client(await gate.story.hub.token("sessions.evaluate")) as gateway:
        assert (await gateway.post("/v1/sessions/sid-rosa/evaluate")).status_code == 400
        answer = await gateway.post("/v1/sessions/sid-rosa/evaluate", json={"iss": IDP})
    assert answer.json()["decision"] == "ALLOW"


@ONE_ENGINE
@pytest.mark.parametrize("path", ["/v1/sign-ins/evaluate", "/v1/sessions/sid-rosa/evaluate"])
async def test_the_scope_is_needed(gate: Gate, path: str) -> None:
    body = {"user": f"email:{ROSA}"}
    others = await gate.story.hub.token("sessions.write", "risk.read", "risk.write")
    async with gate.story.hub.client(others) as client:
        assert (await client.post(path, json=body)).status_code == 403
    async with gate.story.hub.client() as client:
        assert (await client.post(path, json=body)).status_code == 401


# --- what is held in memory ---------------------------------------------------------------------


@contextmanager
def counting(database: Database) -> Iterator[list[str]]:
    """Yield the SELECT statements that are sent meanwhile."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            seen.append(statement)

    for engine in {database.engine.sync_engine, database.reader.sync_engine}:
        sa.event.listen(engine, "before_cursor_execute", note)
    yield seen
    for engine in {database.engine.sync_engine, database.reader.sync_engine}:
        sa.event.remove(engine, "before_cursor_execute", note)


def containment_of(user_id: str, *, denies: bool, tenant_id: str = "default") -> Containment:
    now = SystemClock().now()
    return Containment(
        tenant_id=tenant_id,
        containment_id=f"ctn_{user_id}",
        user_id=user_id,
        state=ContainmentState.OPEN if denies else ContainmentState.RESTORING,
        level="HIGH",
        trace_id=f"trace of {user_id}",
        actions=frozenset({Action.QUARANTINE}),
        reasons=(),
        identifiers=(),
        label=user_id,
        round=1,
        opened_at=now,
        signal_received_at=now,
        enforced_at=now,
        closed_at=None,
    )


async def write(database: Database, *containments: Containment, known: bool = False) -> None:
    keys = {(one.tenant_id, one.containment_id) for one in containments} if known else set()
    async with database.transaction() as connection:
        await actions.store.write_containments(connection, containments, known=keys)
        await note_changes(
            connection,
            CONTAINMENTS_KIND,
            [(one.tenant_id, one.user_id) for one in containments],
        )


async def test_a_warm_decision_asks_the_database_for_nothing(database: Database) -> None:
    feed = ChangeFeed(database, Notifier())
    denied = DeniedUsers(database, feed)
    await write(database, containment_of("usr_1", denies=True))
    await feed.refresh()
    expected = {"usr_1": "trace of usr_1"}
    assert await denied.among("default", ["usr_1", "usr_2"]) == expected
    with counting(database) as statements:
        assert await denied.among("default", ["usr_1", "usr_2"]) == expected
    assert statements == []


async def test_a_feed_that_is_not_read_is_not_believed(database: Database) -> None:
    denied = DeniedUsers(database, ChangeFeed(database, Notifier()))
    assert await denied.among("default", ["usr_1"]) == {}
    await write(database, containment_of("usr_1", denies=True))
    assert await denied.among("default", ["usr_1"]) == {"usr_1": "trace of usr_1"}
    assert await denied.among("default", []) == {}


async def test_a_change_reads_anew_whom_it_names_and_nobody_of_other_tenants(
    database: Database,
) -> None:
    feed = ChangeFeed(database, Notifier())
    denied = DeniedUsers(database, feed)
    await feed.refresh()
    assert await denied.among("default", ["usr_1"]) == {}
    await write(
        database,
        containment_of("usr_1", denies=True),
        containment_of("usr_2", denies=True, tenant_id="blue"),
    )
    with counting(database) as statements:
        await feed.refresh()
    # Two read the feed on PostgreSQL, one on SQLite; one the user of the tenant that is held.
    reading = 2 if database.engine.dialect.name == "postgresql" else 1
    assert len(statements) == reading + 1
    assert set(await denied.among("default", ["usr_1", "usr_2"])) == {"usr_1"}
    assert set(await denied.among("blue", ["usr_1", "usr_2"])) == {"usr_2"}


@pytest.mark.parametrize("seed", range(5))
async def test_memory_says_what_the_database_says_however_things_interleave(
    database: Database, seed: int
) -> None:
    choices = random.Random(seed)  # noqa: S311 - repeatable, not secret
    feed = ChangeFeed(database, Notifier())
    denied = DeniedUsers(database, feed)
    users = [f"usr_{number}" for number in range(4)]
    wanted = dict.fromkeys(users, True)
    await write(database, *(containment_of(user, denies=True) for user in users))
    await feed.refresh()
    for _ in range(10):
        user = choices.choice(users)
        wanted[user] = not wanted[user]
        steps = [
            write(database, containment_of(user, denies=wanted[user]), known=True),
            denied.among("default", users),
            feed.refresh(),
        ]
        choices.shuffle(steps)
        if choices.random() < 0.5:
            denied.start_over()
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*steps)
        await feed.refresh()
        assert set(await denied.among("default", users)) == {u for u in users if wanted[u]}
