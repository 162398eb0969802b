"""Two api processes know what one of them saw: failed sign-ins, and sessions used in turns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from hub.app import make_app
from hub.inline.evaluator import Evaluator
from hub.node import Node, open_node
from hub.sign_ins.evaluator import SignIns
from risk.entities import service as entities
from risk.entities.model import Reference
from risk.model import EntityKind
from risk.signins.failures import FLUSHED_MAX, WINDOW, added, place_of
from risk.signins.model import FAILURES_KIND, FailureNote, Tally
from runtime.clock import SystemClock
from runtime.store import changes
from ssf.subject import email
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub, config_for
from tests.hub.story import IDP, ROSA, begin
from tests.hub.test_inline import HOME, LAPTOP, OFFICE, SID, THIEF, state_of
from tests.risk.test_contexts import CHROME

SIGN_IN = "/v1/sign-ins/evaluate"
NOW = SystemClock().now()


@dataclass
class Process:
    """One api process, and a way to ask it."""

    node: Node
    app: Any
    http: httpx2.AsyncClient

    @property
    def sign_ins(self) -> SignIns:
        found: SignIns = state_of(self).sign_ins
        return found

    @property
    def inline(self) -> Evaluator:
        found: Evaluator = state_of(self).inline
        return found

    async def fail(self, user: str = ROSA, ip: str = HOME) -> None:
        await self.sign_in(user, ip, phase="after", outcome="failure")

    async def sign_in(self, user: str = ROSA, ip: str = HOME, **more: str) -> dict[str, Any]:
        body = {"user": f"email:{user}", "ip": ip, "user_agent": CHROME} | more
        return await self._post(SIGN_IN, body)

    async def failures_weigh(self, user: str = ROSA, ip: str = HOME) -> bool:
        told = await self.sign_in(user, ip)
        return "failures" in {each["name"] for each in told["login_risk"]["contributions"]}

    async def ask(self, ip: str, device: str) -> dict[str, Any]:
        body = {"iss": IDP, "ip_chain": [ip], "ua": CHROME, "device": {"token_hash": device}}
        return await self._post(f"/v1/sessions/{SID}/evaluate", body)

    async def _post(self, path: str, body: object) -> dict[str, Any]:
        answer = await self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def share(self) -> None:
        """Write what this process has to share."""
        await self.sign_ins.failures.flush()
        await self.inline.behind.flush()


@dataclass
class Two:
    """Two processes of one hub."""

    first: Process
    second: Process

    async def settle(self) -> None:
        """Let each process share what it saw, and hear of the other."""
        for each in (self.first, self.second):
            await each.share()
        for each in (self.first, self.second):
            await each.node.changes.refresh()


@pytest.fixture
async def two(hub: Hub) -> AsyncIterator[Two]:
    story = await begin(hub)
    token = await hub.token("sessions.evaluate")
    headers = {"authorization": f"Bearer {token}"}
    config = config_for(hub.node.config.database_url, index=1)
    async with open_node(config) as node:
        app = make_app(node, hub.outside)
        async with (
            hub.client(token) as here,
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app), base_url=ISSUER, headers=headers
            ) as there,
        ):
            yield Two(Process(hub.node, hub.app, here), Process(node, app, there))
    await story.admin.aclose()


async def test_failures_in_one_process_weigh_in_the_other(two: Two) -> None:
    assert not await two.second.failures_weigh()
    for _ in range(5):
        await two.first.fail()
    assert await two.first.failures_weigh()
    await two.settle()
    assert await two.second.failures_weigh()
    assert await two.first.failures_weigh()
    # Whoever fails elsewhere makes nothing harder for the user.
    assert not await two.second.failures_weigh(ip=OFFICE)


async def test_failures_of_two_processes_add_up(two: Two) -> None:
    for _ in range(3):
        for each in (two.first, two.second):
            await each.fail()
    await two.settle()
    for each in (two.first, two.second):
        count = await each.sign_ins.failures.of(
            "default", await _reference(two), place_of(HOME, None), each.node.clock.now()
        )
        assert count == 6


async def test_a_success_in_one_process_is_one_in_the_other(two: Two) -> None:
    for _ in range(5):
        await two.first.fail()
    await two.settle()
    assert await two.second.failures_weigh()
    await two.second.sign_in(phase="after", outcome="success")
    assert not await two.second.failures_weigh()
    await two.settle()
    assert not await two.first.failures_weigh()


async def test_names_nobody_knows_count_for_the_address_everywhere(two: Two) -> None:
    for number in range(20):
        await two.first.fail(f"guess{number}@customer.example")
    await two.settle()
    assert await two.second.failures_weigh()


def _address(number: int) -> str:
    return f"10.0.{number // 250}.{number % 250}"


@ONE_ENGINE
async def test_a_flood_of_names_is_shared_a_few_at_once_and_the_worst_first(two: Two) -> None:
    failures = two.first.sign_ins.failures
    now = two.first.node.clock.now()
    for number in range(3_000):
        failures.failed("default", f"usr_{number}", place_of(_address(number), None), now)
    for _ in range(9):
        failures.failed("default", "usr_worst", place_of("203.0.113.77", None), now)
    before = await _changes(two)
    await failures.flush()
    assert await _changes(two) - before == FLUSHED_MAX
    await two.second.node.changes.refresh()
    worst = place_of("203.0.113.77", None)
    told = await two.second.sign_ins.failures.of("default", "usr_worst", worst, now)
    assert told == 9
    # The others are not lost: they count where they were seen.
    assert await failures.of("default", "usr_7", place_of(_address(7), None), now) == 1


async def test_two_clients_at_two_processes_are_a_fork(two: Two) -> None:
    """A balancer that keeps each client at its process gives a thief no more tries."""
    assert (await two.first.ask(HOME, LAPTOP))["decision"] == "ALLOW"
    await two.settle()
    assert (await two.second.ask(HOME, THIEF))["decision"] != "ALLOW"
    await two.settle()
    assert (await two.first.ask(HOME, LAPTOP))["decision"] == "ALLOW"
    await two.settle()
    decided = await two.second.ask(HOME, THIEF)
    assert decided["decision"] == "TERMINATE"
    assert "fork" in decided["changed"]["classes"]
    assert (await two.first.ask(HOME, LAPTOP))["decision"] == "ALLOW"


def test_an_old_count_begins_anew_and_a_late_word_turns_no_clock_back() -> None:
    tally = Tally(count=5, at=NOW)
    late = FailureNote(tenant_id="t", name="n", failed=2, at=NOW - timedelta(minutes=1))
    assert added(tally, late) == Tally(count=7, at=NOW)
    much_later = FailureNote(tenant_id="t", name="n", failed=2, at=NOW + 2 * WINDOW)
    assert added(tally, much_later) == Tally(count=2, at=NOW + 2 * WINDOW)


async def _reference(two: Two) -> str:
    """Return how Rosa is called where failures are counted."""
    async with two.first.node.database.snapshot() as connection:
        found = await entities.resolve_all(
            connection, "default", [Reference(subject=email(ROSA))], kind=EntityKind.USER
        )
    return next(iter(found.values())) or ""


async def _changes(two: Two) -> int:
    async with two.first.node.database.snapshot() as connection:
        rows = await connection.execute(
            sa.select(sa.func.count()).where(changes.c.kind == FAILURES_KIND)
        )
    return int(rows.scalar_one())
