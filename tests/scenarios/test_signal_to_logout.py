"""A vendor's signal leads to quarantine and logout everywhere; a clean device undoes it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hub.demo.incident import Incident
from hub.demo.processes import until
from hub.demo.story import Story
from hub.demo.world import World
from tests.scenarios.kit import assert_flawless, enrolled, until_stored_as

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

DEMO_S = 120.0


async def test_the_whole_story_of_the_demo_holds(world: World) -> None:
    world.make_room(1)
    story = Story(world, lambda _: None)
    await story.play()
    told = {(moment.who, moment.what) for moment in story.timeline}
    assert ("Ravi Patel", "is still signed in everywhere") in told
    assert ("Signalhub", "closes the containment") in told


@pytest.mark.requirement("SET-18", "SCC-19", "WH-5")
async def test_each_effect_happens_once(world: World) -> None:
    incident = await enrolled(world, "once")
    await incident.play()
    await assert_flawless(world, incident)


async def test_membership_precedes_every_logout(world: World) -> None:
    """Otherwise a person could sign in again between the two."""
    incident = await enrolled(world, "in-order")
    await incident.sign_in()
    await incident.report_compromised()
    await incident.contained()
    (joined,) = await world.ledger("idp", what="scim.member_added", user=incident.user)
    for place in incident.doomed:
        for ended in await world.ledger(place, what="session.ended", user=incident.user):
            assert ended["at"] >= joined["at"], place
    await incident.report_clean()
    await incident.restored()


async def test_the_clean_word_of_another_vendor_changes_nothing(world: World) -> None:
    incident = await enrolled(world, "two-vendors")
    other = await world.start_peer("vendor", "other-vendor")
    try:
        await world.introduce_vendor(other, "Another vendor")
        await incident.sign_in()
        await incident.report_compromised()
        await incident.contained()
        sent = await incident.report_clean(by=other)
        await until_stored_as(world, sent["jti"], "assessed")
        assert await incident.is_at("HIGH")()
        assert await incident.is_quarantined()
        await incident.report_clean()
        await incident.restored()
    finally:
        await other.stop()


async def test_a_clean_device_frees_nobody_whose_password_is_breached(world: World) -> None:
    incident = await enrolled(world, "breached")
    await incident.sign_in()
    await incident.report_compromised()
    await incident.contained()
    await world.emit(
        shape="credential-compromise", user={"format": "email", "email": incident.user}
    )
    await until("the containment has two causes", _has_causes(incident, active=2))
    await incident.report_clean()
    await until("one cause is left", _has_causes(incident, active=1))
    (containment,) = await world.containments(incident.user)
    assert containment["state"] == "open"
    assert await incident.is_quarantined()
    shown = await world.admin("GET", f"/admin/v1/containments/{containment['id']}")
    left = [cause["name"] for cause in shown["causes"] if cause["cleared_at"] is None]
    assert left == ["password_compromised"]


def _has_causes(incident: Incident, *, active: int) -> Callable[[], Awaitable[bool]]:
    async def has_causes() -> bool:
        (containment,) = await incident.world.containments(incident.user)
        shown = await incident.world.admin("GET", f"/admin/v1/containments/{containment['id']}")
        return sum(cause["cleared_at"] is None for cause in shown["causes"]) == active

    return has_causes


@pytest.mark.xdist_group("demo")
async def test_the_demo_command_exits_0_and_tells_the_story_as_json() -> None:
    async with _demo() as process:
        output, _ = await asyncio.wait_for(process.communicate(), DEMO_S)
    told = msgspec.json.decode(output)
    assert process.returncode == 0, told
    assert told["ok"] is True
    assert told["failure"] is None
    assert told["timeline"][-1]["what"] == "closes the containment"
    hours = [moment["hour"] for moment in told["timeline"]]
    first_of_evening = hours.index(None)
    assert hours[0] == "8:00"
    assert hours[first_of_evening - 1] == "16:00"
    assert not any(hours[first_of_evening:])
    decided = {moment["what"]: moment["why"].split(";")[0] for moment in told["timeline"]}
    assert decided["opens files at a client's office"] == "STEP_UP by strict/another-network"
    assert decided["reads mail there, is asked nothing"] == "ALLOW"
    assert decided["reads mail by in-flight Wi-Fi"] == "ALLOW"
    assert decided["opens crm on the phone"] == "STEP_UP by strict/another-network"


@pytest.mark.xdist_group("demo")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for a child in /proc")
async def test_the_demo_command_exits_1_with_the_reason_when_a_step_fails() -> None:
    async with _demo() as process:
        # Without its vendor the story cannot go on, however far it is.
        os.kill(await _child(process.pid, "conformance.peers\0vendor"), signal.SIGKILL)
        output, _ = await asyncio.wait_for(process.communicate(), DEMO_S)
    told = msgspec.json.decode(output)
    assert process.returncode == 1
    assert told["ok"] is False
    assert told["failure"]


@asynccontextmanager
async def _demo() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hub.cli",
        "demo",
        "--json",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_without_settings(os.environ),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _without_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    return {name: text for name, text in environment.items() if not name.startswith("SIGNALHUB_")}


async def _child(parent: int, command: str) -> int:
    """Return the id of the child whose command line has `command` in it, when it is there."""
    found: list[int] = []

    async def is_there() -> bool:
        found[:] = [pid for pid in _children(parent) if command in _read(f"/proc/{pid}/cmdline")]
        return bool(found)

    await until(f"the demo starts {command!r}", is_there)
    return found[0]


def _children(parent: int) -> list[int]:
    return [int(pid) for pid in _read(f"/proc/{parent}/task/{parent}/children").split()]


def _read(path: str) -> str:
    return Path(path).read_text()
