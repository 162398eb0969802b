"""A provider runs away, and the hub dies twice meanwhile: few are touched, and all is undone.

Row 29 of the mission table, with real processes. Judged by the ledgers of the IdP, of the apps and
of the admins' webhook; the hub's word is asked only for when to look.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.kills import settings_on_postgresql
from hub.demo.incident import Incident
from hub.demo.processes import HubProcess, until
from hub.demo.world import IDP, PLACES, QUARANTINE, RAVI_PATEL, Person, World
from tests.scenarios.kit import person

pytestmark = [pytest.mark.scenario, pytest.mark.anyio, pytest.mark.long]

USERS = 100
MARKED = 40
#: min(25, max(3, 2 % of 100)) per 10 min (contracts §6 Guards)
CONTAINED_MAX = 3
#: how many words were taken when the hub dies first; ten would be too many
SAID_BEFORE_THE_CRASH = 8
AT_ONCE = 16
VENDOR_WAITS_S = 120.0


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.xdist_group("runaway-sqlite")),
        pytest.param("postgresql", marks=pytest.mark.xdist_group("runaway-postgresql")),
    ]
)
async def company(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Yield a world of its own with exactly a hundred users."""
    environment: dict[str, str] = {}
    if request.param == "postgresql":
        server: str = request.getfixturevalue("postgresql_server")
        environment = await settings_on_postgresql(server)
    world = World(tmp_path, environment=environment)
    try:
        await world.start()
        yield world
    finally:
        await world.stop()
    troubles = cast("HubProcess", world.hub).troubles()
    assert troubles, "a quarantine has to be seen in the log"
    assert not [line for line in troubles if '"provider.quarantined"' not in line]


@pytest.mark.requirement("SSF-SEC-5")
async def test_row_29_a_runaway_provider_is_stopped_and_undone_whatever_dies(
    company: World,
) -> None:
    marked = [person(f"marked-{number}", devices=1) for number in range(MARKED)]
    others = [person(f"other-{number}", devices=0) for number in range(USERS - MARKED - 2)]
    await _some_at_once(company.enrol(each) for each in (*marked, *others))
    await _some_at_once(company.sign_in(each) for each in (*marked[CONTAINED_MAX:], RAVI_PATEL))
    first = [Incident(company, each) for each in marked[:CONTAINED_MAX]]
    await _some_at_once(each.sign_in() for each in first)

    await _mark(first)
    for each in first:
        await each.contained()
    rest = [Incident(company, each) for each in marked[CONTAINED_MAX:]]
    await asyncio.gather(_mark(rest), _crash_twice(company))
    await until("all is undone", lambda: _is_undone(company))
    await until("an admin is told", lambda: _is_told(company))

    touched = {each.user for each in first}
    assert await _moves(company) == {
        user: ["scim.member_added", "scim.member_removed"] for user in touched
    }
    ended = {place: await _logged_out(company, place) for place in PLACES}
    assert ended == {place: dict.fromkeys(touched, 1) for place in PLACES}
    notices = await _told(company, "provider.quarantined")
    assert {each["data"]["users"] for each in notices} == {USERS}
    assert len({each["request_id"] for each in notices}) == len(notices) == 1
    opened = await _told(company, "containment.opened")
    assert {each["data"]["label"] for each in opened} == {each.person.label for each in first}
    await _some_at_once(_is_let_in(company, each) for each in (*marked, RAVI_PATEL))


async def _mark(incidents: list[Incident]) -> None:
    """Let the vendor call one device after the other compromised; it repeats until it is heard."""
    for each in incidents:
        await each.report_compromised(wait_s=VENDOR_WAITS_S)


async def _crash_twice(world: World) -> None:
    """Kill all of the hub in the middle of it, and again as soon as it has stopped believing."""
    hub = cast("HubProcess", world.hub)

    async def has_heard_enough() -> bool:
        return len(await _items(world, "signals")) >= SAID_BEFORE_THE_CRASH

    async def no_longer_believes() -> bool:
        (provider,) = await _items(world, "providers")
        return bool(provider["status"] == "quarantined")

    for moment in (has_heard_enough, no_longer_believes):
        await until(moment.__name__, moment)
        await hub.kill()
        await hub.start(world.http)


async def _has_members(world: World, count: int) -> bool:
    return len(await world.members(QUARANTINE)) == count


async def _is_undone(world: World) -> bool:
    """Return whether nothing is open, and nothing is left to do."""
    containments = await _items(world, "containments")
    tasks = await _items(world, "tasks?state=queued")
    signals = await _items(world, "signals?state=received")
    closed = all(each["state"] == "closed" for each in containments)
    return closed and not tasks and not signals and await _has_members(world, 0)


async def _is_told(world: World) -> bool:
    return bool(await _told(world, "provider.quarantined"))


async def _told(world: World, kind: str) -> list[dict[str, Any]]:
    return await world.ledger("webhook", what="webhook.received", type=kind, outcome="effect")


async def _moves(world: World) -> dict[str, list[str]]:
    """Return by user how the membership of the quarantine group changed."""
    moves: dict[str, list[str]] = {}
    for entry in await world.ledger(IDP, what="scim.", outcome="effect", group=QUARANTINE):
        moves.setdefault(str(entry.get("user")), []).append(str(entry["what"]))
    return moves


async def _logged_out(world: World, place: str) -> Counter[str]:
    """Return by user how many sessions ended at a place; everybody had one."""
    return Counter(str(each["user"]) for each in await world.ledger(place, what="session.ended"))


async def _is_let_in(world: World, somebody: Person) -> None:
    """Sign in at the IdP the ordinary way, which asks the hub and looks at the group."""
    body = {"user": somebody.email, "device": somebody.devices[0]}
    await world.http.ask("POST", f"{world.peer(IDP).url}/login", body)


async def _items(world: World, listing: str) -> list[dict[str, Any]]:
    sign = "&" if "?" in listing else "?"
    listed = await world.admin("GET", f"/admin/v1/{listing}{sign}limit=100")
    items: list[dict[str, Any]] = listed["items"]
    return items


async def _some_at_once(steps: Iterable[Awaitable[object]]) -> None:
    """Await all, a few at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(step: Awaitable[object]) -> None:
        async with gate:
            await step

    await asyncio.gather(*(one(step) for step in steps))
