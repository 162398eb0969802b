"""The main job through the assembled hub, in one process, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hub.conftest import Hub
from tests.hub.story import IDP, begin


@pytest.mark.requirement("CAEP-28")
async def test_a_compromised_device_quarantines_and_logs_out_and_a_clean_one_undoes_it(
    hub: Hub,
) -> None:
    story = await begin(hub)
    await story.play()

    (containment,) = (await story.get("/admin/v1/containments"))["items"]
    shown = await story.get(f"/admin/v1/containments/{containment['id']}")
    states = {(task["kind"], task["target"]): task["state"] for task in shown["tasks"]}
    assert containment["user_id"] == story.ids["rosa"]
    assert containment["state"] == "open"
    assert set(states.values()) == {"done"}, states
    risk = await story.get(f"/api/v1/users/{story.ids['rosa']}/risk")
    assert risk["riskLevel"] == "HIGH"
    assert (await story.get(f"/api/v1/users/{story.ids['tim']}/risk"))["riskLevel"] == "LOW"
    called = [request.url for request in hub.outside.requests]
    assert f"{IDP}/gtr" in called
    assert "https://crm.example/gtr" in called
    assert called.count("https://pay.example/ssf") == 2

    hub.clock.advance(60)
    assert (await story.push(compliant=True)).status_code == 202
    await hub.settle()

    (containment,) = (await story.get("/admin/v1/containments"))["items"]
    assert containment["state"] == "closed"
    risk = await story.get(f"/api/v1/users/{story.ids['rosa']}/risk")
    assert risk["riskLevel"] == "LOW"


async def test_a_broken_set_among_good_ones_changes_nothing_and_stops_nobody(hub: Hub) -> None:
    story = await begin(hub)
    refused = await story.push(exp=1)
    await story.play()

    assert refused.status_code == 400
    signals: list[dict[str, Any]] = (await story.get("/admin/v1/signals"))["items"]
    assert [signal["state"] for signal in signals] == ["assessed"]
