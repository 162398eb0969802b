"""When the supervisor is killed, what it started ends at once, whatever it was doing."""

from __future__ import annotations

import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import msgspec
import pytest

from hub.demo.processes import SUPERVISOR, Http, HubProcess, kill, until

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

SEED = 20_260_305
ROUNDS = 4
#: about what a process needs to start, so that some kills fall into a start and some after it
START_S = 1.0
STARTED = ("core.started", "delivery.started", "api.started")


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    client = Http()
    yield client
    await client.close()


@pytest.fixture
async def hub(http: Http, tmp_path: Path) -> AsyncIterator[HubProcess]:
    started = HubProcess(tmp_path, admin_token=secrets.token_urlsafe(32), environment={})
    await started.start(http)
    yield started
    await started.stop()


def _pids(hub: HubProcess, role: str) -> list[int]:
    return [pid for pid, each in hub.processes().items() if each == role]


async def _restarted(hub: HubProcess, role: str) -> int:
    """Kill the process of a role; return its successor as soon as there is one."""
    (before,) = _pids(hub, role)
    kill(before)
    found: list[int] = []

    async def is_there() -> bool:
        found[:] = [pid for pid in _pids(hub, role) if pid != before]
        return bool(found)

    await until(f"{role} is started again", is_there)
    return found[0]


def _events(hub: HubProcess, since: int) -> Iterator[str]:
    """Yield the events that were logged behind a place in the log."""
    with hub.log.open("rb") as log:
        log.seek(since)
        for line in log:
            if line.startswith(b"{"):
                yield msgspec.json.decode(line)["event"]


async def test_processes_that_wait_for_core_do_not_outlive_the_supervisor(
    hub: HubProcess, http: Http
) -> None:
    core = await _restarted(hub, "core")
    os.kill(core, signal.SIGSTOP)
    for role in ("api", "delivery"):
        await _restarted(hub, role)
    (supervisor,) = _pids(hub, SUPERVISOR)
    kill(supervisor)
    until_then = hub.log.stat().st_size
    os.kill(core, signal.SIGCONT)
    await hub.kill(SUPERVISOR)

    assert not set(STARTED) & set(_events(hub, until_then))
    await hub.start(http)
    assert not hub.troubles()


async def test_a_hub_starts_again_whenever_its_supervisor_was_killed(
    hub: HubProcess, http: Http
) -> None:
    chance = random.Random(SEED)  # noqa: S311 - moments, not secrets
    for _ in range(ROUNDS):
        await hub.kill(chance.choice(("core", "api", "delivery")))
        await anyio.sleep(chance.uniform(0.0, START_S))
        await hub.kill(SUPERVISOR)
        await hub.start(http)
    assert not hub.troubles()
