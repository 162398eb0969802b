"""Two nodes share a database and the work; what one leaves behind when it dies, the other does."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.kills import enrol_crowd, settings_on_postgresql
from hub.demo.incident import Incident
from hub.demo.processes import HubProcess
from hub.demo.world import World
from tests.scenarios.cluster import Balancer, Cluster
from tests.scenarios.kit import assert_flawless, enrolled

pytestmark = [
    pytest.mark.scenario,
    pytest.mark.anyio,
    pytest.mark.long,
    pytest.mark.xdist_group("two-nodes"),
]


@pytest.fixture
async def cluster(postgresql_server: str, tmp_path: Path) -> AsyncIterator[tuple[World, Cluster]]:
    """Yield a world whose hub is two nodes behind one address."""
    balancer = Balancer()
    nodes = Cluster(
        tmp_path,
        balancer,
        issuer=await balancer.start(),
        admin_token=secrets.token_urlsafe(32),
        environment=await settings_on_postgresql(postgresql_server),
    )
    world = World(tmp_path, hub=nodes)
    try:
        await world.start()
        await enrol_crowd(world)
        yield world, nodes
    finally:
        await world.stop()
        await balancer.stop()
    assert not [line for node in nodes.nodes for line in node.troubles()]


async def test_the_other_node_completes_what_a_killed_one_had_begun(
    cluster: tuple[World, Cluster],
) -> None:
    world, nodes = cluster
    calm = await enrolled(world, "both-alive")
    await calm.play()
    await assert_flawless(world, calm)

    first, second = nodes.nodes
    await _survive(world, "first-dies", victim=first)
    await first.start(world.http)
    await _survive(world, "second-dies", victim=second)


async def _survive(world: World, name: str, *, victim: HubProcess) -> None:
    """Kill a node for good while incidents are under way; they have to complete."""
    incidents = [await enrolled(world, f"{name}-{number}") for number in range(3)]
    for incident in incidents:
        await incident.sign_in()
    await asyncio.gather(*(incident.report_compromised() for incident in incidents))
    await victim.kill()
    await asyncio.gather(*(_complete(incident) for incident in incidents))
    await assert_flawless(world, *incidents)


async def _complete(incident: Incident) -> None:
    await incident.contained()
    await incident.report_clean()
    await incident.restored()
    await incident.sign_in_again()
