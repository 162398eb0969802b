"""Live sessions when facts are not in memory, or not to be had: what waits, what falls back."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from structlog.typing import EventDict
from typing_extensions import override

from hub.app import make_app
from hub.denied import DeniedUsers
from hub.inline.evaluator import Evaluator
from hub.inline.model import Answer, SessionQuestion
from hub.inline.place import Placing
from hub.inline.warmth import Warmth
from hub.node import Node, open_node
from risk.inline.service import SETTLE
from risk.zones.origin import Origin
from runtime.caller import Caller
from runtime.changes import ChangeFeed
from runtime.database import Database
from runtime.feed import ConfigFeed, bump
from runtime.notify import Notifier
from runtime.writer import ItemT, Operation, ResultT, Writer
from tests.hub.commands import LIMIT_S
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub, config_for
from tests.hub.story import IDP, begin
from tests.hub.test_inline import (
    HOME,
    OFFICE,
    SID,
    STOLEN,
    Gateway,
    counting,
    gateway,
    request_from,
    state_of,
)
from tests.runtime.background import until

__all__ = ["gateway"]

CALLER = Caller(
    tenant_id="default", client_id="cli_test", scopes=frozenset({"sessions.evaluate"}), app_id=None
)


def fallbacks(reason: str) -> float:
    return REGISTRY.get_sample_value("hub_inline_fallbacks_total", {"reason": reason}) or 0.0


def cold_decisions() -> float:
    name = "hub_inline_evaluate_seconds_count"
    return REGISTRY.get_sample_value(name, {"held": "cold"}) or 0.0


def evaluator(
    node: Node, state: Any, *, placing: Placing | None = None, **limits: Any
) -> Evaluator:
    """Return another evaluator of the same hub, which holds nothing yet."""
    return Evaluator(
        node,
        denied_users=state.denied_users,
        policies=state.session_policies,
        placing=placing or Placing(state.zones),
        history=state.history,
        recorder=state.sign_ins.recorder,
        warmth=state.warmth,
        **limits,
    )


async def asked(node: Node, judge: Evaluator, ip: str) -> Answer:
    body = request_from(ip)
    question = SessionQuestion(
        tenant_id="default",
        at=node.clock.now(),
        iss=IDP,
        sid=SID,
        chain=(ip,),
        user_agent=body["ua"],
        device_token_hash=body["device"]["token_hash"],
    )
    return await judge.evaluate(CALLER, question)


@pytest.fixture
async def impatient(gateway: Gateway) -> Node:
    """Return the node of a hub whose deadline is over at once."""
    node = gateway.story.hub.node
    config = config_for(node.config.database_url, evaluate_deadline_ms=0.0)
    return dataclasses.replace(node, config=config)


async def test_who_has_to_read_first_is_not_out_of_time(gateway: Gateway, impatient: Node) -> None:
    judge = evaluator(impatient, state_of(gateway.story.hub), cold_limit_s=60.0)
    before, fell_back = cold_decisions(), fallbacks("cold") + fallbacks("deadline")

    first = await asked(impatient, judge, HOME)
    await judge.behind.flush()
    moved = await asked(impatient, judge, OFFICE)

    assert first.verdict.decision.name == "ALLOW"
    assert (moved.verdict.decision.name, bool(moved.step_up_id)) == ("STEP_UP", True)
    assert fallbacks("cold") + fallbacks("deadline") == fell_back
    assert cold_decisions() == before + 2


class Stalled:
    """A writer that never ends the write of what has to be written before the answer."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def submit(self, operation: Operation[ItemT, ResultT], item: ItemT) -> ResultT:
        if operation.name == SETTLE.name:
            await asyncio.Event().wait()
        return await self._writer.submit(operation, item)


def unrecorded() -> float:
    return REGISTRY.get_sample_value("hub_inline_unrecorded_total") or 0.0


async def test_an_answer_that_cannot_be_written_first_stays_what_it_is_and_is_counted(
    gateway: Gateway,
) -> None:
    node = gateway.story.hub.node
    stalled = dataclasses.replace(node, writer=Stalled(node.writer))
    judge = evaluator(stalled, state_of(gateway.story.hub), cold_limit_s=60.0)
    assert (await asked(stalled, judge, HOME)).verdict.decision.name == "ALLOW"
    before, fell_back = unrecorded(), fallbacks("deadline") + fallbacks("cold")

    async with asyncio.timeout(LIMIT_S):
        answer = await asked(stalled, judge, OFFICE)

    assert (answer.verdict.decision.name, answer.step_up_id) == ("STEP_UP", "")
    assert unrecorded() == before + 1
    # The deadline is about deciding: for the write there is a limit of its own.
    assert fallbacks("deadline") + fallbacks("cold") == fell_back


class Stuck(Placing):
    """Zones that never say where a request comes from, once they are stuck."""

    is_stuck = False

    @override
    async def judge(self, tenant_id: str, chain: Sequence[str]) -> Origin:
        if self.is_stuck:
            await asyncio.Event().wait()
        return await super().judge(tenant_id, chain)


def is_warm(judge: Evaluator, state: Any) -> bool:
    """Return whether a question about Rosa's session would find everything in memory."""
    is_held = judge.live.peek("default", IDP, SID, None) is not None
    return is_held and bool(state.warmth.is_ready("default"))


async def test_row_18_past_the_deadline_the_fallback_decides_about_a_warm_session_and_is_counted(
    gateway: Gateway,
) -> None:
    hub = gateway.story.hub
    config = config_for(hub.node.config.database_url, evaluate_deadline_ms=20.0)
    node = dataclasses.replace(hub.node, config=config)
    placing = Stuck(state_of(hub).zones)
    judge = evaluator(node, state_of(hub), placing=placing, cold_limit_s=LIMIT_S)
    # What was written is told, and makes the session be read once more: only then it is warm.
    async with asyncio.timeout(LIMIT_S):
        while not is_warm(judge, state_of(hub)):
            assert (await asked(node, judge, HOME)).verdict.decision.name == "ALLOW"
            await judge.behind.flush()
            await hub.node.feed.refresh()
            await hub.node.changes.refresh()
    before, cold = fallbacks("deadline"), fallbacks("cold")

    placing.is_stuck = True
    with capture_logs() as logs:
        async with asyncio.timeout(LIMIT_S):
            late = await asked(node, judge, OFFICE)

    assert (late.verdict.decision.name, late.verdict.reasons[-1]) == ("STEP_UP", "out_of_time")
    assert late.step_up_id == ""
    assert (fallbacks("deadline"), fallbacks("cold")) == (before + 1, cold)
    (line,) = [each for each in logs if each["event"] == "decision.fell_back"]
    assert line["reason"] == "deadline"
    # Nothing was settled by it: whoever has the time finds an ordinary question.
    assert (await gateway.ask(request_from(OFFICE)))["step_up"]["new"] is True


# A reading of SQLite does not wait for anything, so that nothing can interrupt it.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_past_the_cold_limit_the_fallback_decides(gateway: Gateway, impatient: Node) -> None:
    judge = evaluator(impatient, state_of(gateway.story.hub), cold_limit_s=0.0)
    before = fallbacks("cold")
    answer = await asked(impatient, judge, HOME)
    assert (answer.verdict.decision.name, answer.verdict.reasons) == ("DENY", ("undecided",))
    assert fallbacks("cold") == before + 1


@ONE_ENGINE
async def test_a_process_has_the_configuration_before_it_is_asked(hub: Hub) -> None:
    story = await begin(hub)
    token = await hub.token("sessions.evaluate")
    config = config_for(hub.node.config.database_url, index=1, evaluate_deadline_ms=0.0)
    async with open_node(config) as node:
        app: Any = make_app(node, hub.outside)
        warmth: Warmth = state_of(dataclasses.replace(hub, app=app)).warmth
        await node.changes.refresh()
        # One reading may have begun before the change feed was read for the first time.
        while not warmth.is_ready("default"):
            await warmth.ready("default")
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app),
            base_url=ISSUER,
            headers={"authorization": f"Bearer {token}"},
        ) as client:
            with counting(node.database) as statements:
                answer = await client.post(f"/v1/sessions/{SID}/evaluate", json=request_from(HOME))
    assert answer.status_code == 200
    read = " ".join(statements)
    assert "FROM sessions" in read
    for table in ("session_policies", "zones", "behaviours", "containments", "clients"):
        assert f"FROM {table}" not in read
    await story.admin.aclose()


# --- the database answers with errors -----------------------------------------------------------


@asynccontextmanager
async def without(database: Database, table: str) -> AsyncIterator[None]:
    """Take a table away meanwhile: every statement about it fails."""
    for old, new in ((table, f"{table}_away"), (f"{table}_away", table)):
        async with database.transaction() as connection:
            await connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))
        if new != table:
            yield


async def test_when_the_database_fails_the_policies_fallback_decides(gateway: Gateway) -> None:
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    await gateway.ask(request_from(HOME))
    before = fallbacks("database")
    async with without(gateway.story.hub.database, "org_values"):
        decided = await gateway.ask(request_from(OFFICE))
        unchanged = await gateway.ask(request_from(HOME))
    assert (decided["decision"], decided["reasons"][-1]) == ("STEP_UP", "out_of_time")
    assert "step_up" not in decided
    assert unchanged["decision"] == "ALLOW"
    assert fallbacks("database") == before + 1
    # With the database back it is an ordinary answer.
    assert "step_up" in await gateway.ask(request_from(OFFICE))


async def test_when_the_database_fails_nobody_unknown_goes_on(gateway: Gateway) -> None:
    before = fallbacks("database")
    async with without(gateway.story.hub.database, "sessions"):
        decided = await gateway.ask(request_from(HOME), sid="sid-nobody")
    assert (decided["decision"], decided["reasons"]) == ("DENY", ["undecided"])
    assert fallbacks("database") == before + 1


@ONE_ENGINE
async def test_the_fallback_lets_no_contained_user_and_no_ended_session_go_on(
    gateway: Gateway,
) -> None:
    story = gateway.story
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    await gateway.ask(request_from(HOME))
    story.hub.clock.advance(seconds=1)
    await story.push()
    await story.hub.settle()
    await gateway.settle()
    async with without(story.hub.database, "org_values"):
        decided = await gateway.ask(request_from(OFFICE))
    assert decided["decision"] in {"DENY", "TERMINATE"}


@ONE_ENGINE
@pytest.mark.parametrize("fallback", ["ALLOW", "STEP_UP"])
async def test_what_was_ended_stays_ended_when_the_database_fails(
    gateway: Gateway, fallback: str
) -> None:
    """Regression: who was logged out got what is stated for when nothing is known."""
    story = gateway.story
    policy = await story.get("/admin/v1/policies/global-session")
    stated = {name: policy[name] for name in ("name", "mode", "rules")}
    put = await story.admin.put(
        "/admin/v1/policies/global-session", json={**stated, "fallback": fallback}
    )
    assert put.is_success, put.text
    await story.hub.node.feed.refresh()
    await gateway.ask(request_from(HOME))
    assert await gateway.decision(STOLEN) == "TERMINATE"
    await gateway.settle()
    assert await gateway.decision(STOLEN) == "TERMINATE"
    gateway.inline.levels.start_over()
    async with without(story.hub.database, "levels"):
        assert await gateway.decision(STOLEN) == "TERMINATE"
        assert await gateway.decision(request_from(HOME)) == fallback


# --- warmth -------------------------------------------------------------------------------------


async def test_reading_goes_on_when_whoever_waited_is_gone(database: Database) -> None:
    feed, changes = ConfigFeed(database, Notifier()), ChangeFeed(database, Notifier())
    denied = DeniedUsers(database, changes)
    begun, may_end, read = asyncio.Event(), asyncio.Event(), list[str]()

    async def load(tenant_id: str) -> None:
        begun.set()
        await may_end.wait()
        read.append(tenant_id)

    warmth = Warmth(feed, denied, [("policies", load)])
    await changes.refresh()
    first = asyncio.create_task(warmth.ready("default"))
    await begun.wait()
    second = asyncio.create_task(warmth.ready("default"))
    first.cancel()
    assert not warmth.is_ready("default")
    may_end.set()
    await second
    assert read == ["default"]
    assert warmth.is_ready("default")
    await warmth.ready("default")
    assert read == ["default"]

    async with database.transaction() as connection:
        await bump(connection, "default", "policies")
    await feed.refresh()
    assert not warmth.is_ready("default")
    await warmth.ready("default")
    assert read == ["default", "default"]


async def test_a_reading_that_fails_is_told_and_tried_again(database: Database) -> None:
    feed, changes = ConfigFeed(database, Notifier()), ChangeFeed(database, Notifier())
    troubles = [OSError("the disk is gone")]

    async def load(_tenant_id: str) -> None:
        if troubles:
            raise troubles.pop()

    warmth = Warmth(feed, DeniedUsers(database, changes), [("policies", load)])
    await changes.refresh()
    with pytest.raises(OSError, match="the disk is gone"):
        await warmth.ready("default")
    await warmth.ready("default")
    assert warmth.is_ready("default")


@ONE_ENGINE
async def test_a_process_that_starts_in_trouble_warms_itself_when_that_is_over(hub: Hub) -> None:
    """Nobody asks it anything: the warnings of its start are not the end of it."""
    config = config_for(hub.node.config.database_url, index=1)
    async with open_node(config) as node:
        with capture_logs() as logs:
            async with without(hub.database, "session_policies"), without(hub.database, "tenants"):
                app: Any = make_app(node, hub.outside)
                warmth: Warmth = state_of(dataclasses.replace(hub, app=app)).warmth
                await _told(logs, "config.not_warmed", tenant_id=None)
            async with without(hub.database, "session_policies"):
                await _told(logs, "config.not_warmed", tenant_id="default")
                assert not warmth.is_ready("default")
            await _told(logs, "config.warmed", tenant_id="default")
        await node.changes.refresh()
        await until(lambda: warmth.is_ready("default"))


async def _told(logs: list[EventDict], event: str, *, tenant_id: str | None) -> None:
    """Wait until something is logged. tenant_id: of whom; None for nobody."""
    wanted = (event, tenant_id)
    await until(lambda: wanted in {(each["event"], each.get("tenant_id")) for each in logs})
