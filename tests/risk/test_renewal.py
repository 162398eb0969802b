"""Nothing in memory is believed for good: what is in use is read anew, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.contexts.model import Context
from risk.inline.memory import LiveSessions
from risk.inline.model import Settled, Stand, StandState
from risk.inline.store import write_stands
from risk.levels import store
from risk.levels.model import LEVELS_KIND
from risk.model import Level
from risk.sessions.model import PutSession
from risk.sessions.service import put_sessions
from risk.sessions.store import sessions
from runtime.changes import Change, ChangeFeed
from runtime.clock import SystemClock
from runtime.database import Database
from runtime.notify import Notifier
from runtime.recollection import Recollection

TENANT = "default"
ISSUER = "https://idp.example"
NOW = SystemClock().now()


async def nothing() -> None:
    """Let nothing happen meanwhile."""


async def recollected(
    database: Database,
    *,
    believed_s: float = 60.0,
    meanwhile: Callable[[], Awaitable[None]] = nothing,
) -> Recollection[Level]:
    """Return levels that are due as soon as somebody asks. meanwhile: after each reading."""

    async def read(
        connection: AsyncConnection, tenant_id: str, entity_ids: Collection[str]
    ) -> dict[str, Level]:
        found = await store.levels_of(connection, tenant_id, entity_ids=entity_ids)
        await meanwhile()
        return found

    changes = ChangeFeed(database, Notifier())
    made = Recollection(
        database,
        changes,
        LEVELS_KIND,
        read,
        nothing=Level.LOW,
        renewed_after_s=-1.0,
        believed_s=believed_s,
    )
    await changes.refresh()
    return made


async def write_level(
    database: Database, level: Level, entity_id: str = "usr_1", tenant_id: str = TENANT
) -> None:
    """Store a level, and tell nobody."""
    async with database.transaction() as connection:
        await connection.execute(
            sa.insert(store.levels).values(
                tenant_id=tenant_id,
                entity_id=entity_id,
                level=level.name,
                score=0.0,
                reasons=[],
                cause_ids=[],
                computed_at=NOW,
            )
        )


async def test_a_fact_in_use_is_read_anew_behind_the_answer(database: Database) -> None:
    levels = await recollected(database)
    assert await levels.of(TENANT, ["usr_1"]) == {"usr_1": Level.LOW}
    await write_level(database, Level.HIGH)
    assert levels.peek(TENANT, "usr_1") is Level.LOW
    await levels.renew()
    assert levels.peek(TENANT, "usr_1") is Level.HIGH


async def test_a_fact_nobody_asks_about_is_left_alone(database: Database) -> None:
    levels = await recollected(database)
    await levels.of(TENANT, ["usr_1"])
    await write_level(database, Level.HIGH)
    await levels.renew()
    assert levels.peek(TENANT, "usr_1") is Level.LOW


async def test_a_fact_that_is_too_old_is_not_believed(database: Database) -> None:
    levels = await recollected(database, believed_s=-1.0)
    await levels.of(TENANT, ["usr_1"])
    assert levels.peek(TENANT, "usr_1") is None


async def test_more_than_one_query_and_one_tenant_are_renewed(database: Database) -> None:
    levels = await recollected(database)
    users = [f"usr_{number}" for number in range(150)]
    for tenant_id in (TENANT, "other"):
        await levels.of(tenant_id, users)
    await write_level(database, Level.HIGH, "usr_149")
    await write_level(database, Level.MEDIUM, "usr_0", "other")
    for tenant_id in (TENANT, "other"):
        assert all(levels.peek(tenant_id, each) is Level.LOW for each in users)
    await levels.renew()
    assert levels.peek(TENANT, "usr_149") is Level.HIGH
    assert levels.peek(TENANT, "usr_0") is Level.LOW
    assert levels.peek("other", "usr_0") is Level.MEDIUM


async def test_what_is_told_while_it_is_renewed_is_read_once_more(database: Database) -> None:
    told: list[Recollection[Level]] = []

    async def tell() -> None:
        for levels in told:
            await levels.changed(
                [Change(tenant_id=TENANT, change_id="chg_1", kind="levels", ref="usr_1", at=NOW)]
            )

    levels = await recollected(database, meanwhile=tell)
    await levels.of(TENANT, ["usr_1"])
    levels.peek(TENANT, "usr_1")
    told.append(levels)
    await levels.renew()
    assert levels.peek(TENANT, "usr_1") is None


async def test_what_this_process_learnt_meanwhile_is_kept(database: Database) -> None:
    learnt: list[Recollection[Level]] = []

    async def learn() -> None:
        for levels in learnt:
            levels.amend(TENANT, "usr_1", lambda _: Level.MEDIUM)

    levels = await recollected(database, meanwhile=learn)
    await levels.of(TENANT, ["usr_1"])
    levels.peek(TENANT, "usr_1")
    learnt.append(levels)
    await levels.renew()
    assert levels.peek(TENANT, "usr_1") is Level.MEDIUM


async def live_sessions(database: Database) -> LiveSessions:
    """Return sessions that are due as soon as somebody asks, with `sid-0` to `sid-39` stored."""
    wanted = [
        PutSession(
            tenant_id=TENANT,
            iss=ISSUER,
            sid=f"sid-{number}",
            user=[{"format": "email", "email": f"user{number}@customer.example"}],
            device=None,
            started_at=NOW,
            now=NOW,
        )
        for number in range(40)
    ]
    async with database.transaction() as connection:
        await put_sessions(connection, wanted)
    changes = ChangeFeed(database, Notifier())
    live = LiveSessions(database, changes, renewed_after_s=-1.0)
    await changes.refresh()
    return live


async def test_a_renewed_session_keeps_its_answers(database: Database) -> None:
    live = await live_sessions(database)
    read_at = []
    for number in range(40):
        found = await live.find(TENANT, ISSUER, f"sid-{number}", None)
        assert found is not None
        found.keep("asked", "answered")
        read_at.append(found.read_at)
        assert live.peek(TENANT, ISSUER, f"sid-{number}", None) is found
    await live.renew()
    for number in range(40):
        held = live.peek(TENANT, ISSUER, f"sid-{number}", None)
        assert held is not None
        assert held.answers == {"asked": "answered"}
        assert held.read_at > read_at[number]


async def test_a_session_whose_end_nobody_told_is_found_ended(database: Database) -> None:
    live = await live_sessions(database)
    await live.find(TENANT, ISSUER, "sid-1", None)
    await live.find(TENANT, ISSUER, "sid-2", None)
    async with database.transaction() as connection:
        await connection.execute(
            sa.update(sessions).where(sessions.c.sid == "sid-1").values(ended_at=NOW)
        )
    for sid in ("sid-1", "sid-2"):
        held = live.peek(TENANT, ISSUER, sid, None)
        assert held is not None
        assert held.session.ended_at is None
    await live.renew()
    assert live.peek(TENANT, ISSUER, "sid-1", None) is None
    assert live.peek(TENANT, ISSUER, "sid-2", None) is not None
    found = await live.find(TENANT, ISSUER, "sid-1", None)
    assert found is not None
    assert found.session.ended_at == NOW


async def test_sessions_that_will_be_asked_about_are_read_together(database: Database) -> None:
    live = await live_sessions(database)
    names = [(ISSUER, f"sid-{number}") for number in range(40)]
    await live.load(TENANT, [*names, (ISSUER, "nobody")])
    held = [live.peek(TENANT, *name, None) for name in names]
    assert all(each is not None for each in held)
    assert live.peek(TENANT, ISSUER, "nobody", None) is None
    changed = held[3]
    assert changed is not None
    async with database.transaction() as connection:
        await connection.execute(
            sa.update(sessions).where(sessions.c.sid == "sid-3").values(ended_at=NOW)
        )
    await live.changed(
        [
            Change(
                tenant_id=TENANT,
                change_id="chg_1",
                kind="sessions",
                ref=changed.session.session_id,
                at=NOW,
            )
        ]
    )
    await live.load(TENANT, names)
    read = live.peek(TENANT, ISSUER, "sid-3", None)
    assert read is not None
    assert read.session.ended_at == NOW
    # The others were not read again.
    assert live.peek(TENANT, ISSUER, "sid-4", None) is held[4]


def stand_of(session_id: str, state: StandState) -> Stand:
    """Return what is settled about a context of a session."""
    return Stand(
        tenant_id=TENANT,
        session_id=session_id,
        context_key="key-1",
        state=state.value,
        level="LOW",
        decision="ALLOW",
        scope="session",
        at=NOW,
        since=NOW,
    )


async def test_what_nobody_told_of_a_context_is_found(database: Database) -> None:
    live = await live_sessions(database)
    found = await live.find(TENANT, ISSUER, "sid-1", None)
    assert found is not None
    session_id = found.session.session_id
    async with database.transaction() as connection:
        await write_stands(connection, [stand_of(session_id, StandState.TERMINATED)])
    assert live.peek(TENANT, ISSUER, "sid-1", None) is found
    await live.renew()
    assert live.peek(TENANT, ISSUER, "sid-1", None) is None
    found = await live.find(TENANT, ISSUER, "sid-1", None)
    assert found is not None
    stand = found.stand_at("key-1")
    assert stand is not None
    assert stand.state == StandState.TERMINATED


async def test_what_is_still_to_be_written_is_no_news(database: Database) -> None:
    live = await live_sessions(database)
    found = await live.find(TENANT, ISSUER, "sid-1", None)
    assert found is not None
    stand = stand_of(found.session.session_id, StandState.ANCHOR)
    found.stand(stand, Context(ip="198.51.100.7", at=NOW), is_pending=True)
    for _ in range(2):
        assert live.peek(TENANT, ISSUER, "sid-1", None) is found
        await live.renew()
    async with database.transaction() as connection:
        await write_stands(connection, [stand])
    live.written(stand, Settled(stand=stand, is_new=True))
    assert live.peek(TENANT, ISSUER, "sid-1", None) is found
    await live.renew()
    assert live.peek(TENANT, ISSUER, "sid-1", None) is found
    assert found.pending == ()
