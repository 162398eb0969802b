"""The metrics of a served hub are those of all its processes together."""

from __future__ import annotations

import re

import httpx2
import pytest

from hub.demo.world import World
from tests.scenarios.kit import enrolled

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]


async def test_what_each_process_counts_is_told_by_the_one_that_answers(world: World) -> None:
    incident = await enrolled(world, "counted")
    await incident.sign_in()
    await incident.report_compromised()
    await incident.contained()
    headers = {"authorization": f"Bearer {world.hub.admin_token}"}
    async with httpx2.AsyncClient(verify=False) as client:
        answer = await client.get(f"{world.hub.issuer}/metrics", headers=headers)
    assert answer.status_code == 200
    counted = {
        name: float(value)
        for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", answer.text, re.MULTILINE)
        if float(value)
    }
    for name in (
        "hub_receivers_sets_total",  # api
        "hub_pipeline_signals_total",  # core
        "hub_actions_attempts_total",  # delivery
    ):
        assert counted.get(name), name
