"""The main job through the assembled hub, in one process, on both databases."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ssf.jose import split_jws
from tests.hub.conftest import Hub
from tests.hub.story import IDP, RISK_LEVEL_CHANGE, ROSA, begin


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


@pytest.mark.requirement("CAEP-33", "EGW-41")
async def test_the_risk_level_goes_out_when_it_changes_and_only_then(hub: Hub) -> None:
    story = await begin(hub)
    path, body = f"/ssf/poll/{story.ids['wiki stream']}", {"returnImmediately": True}

    async def told() -> list[dict[str, Any]]:
        async with hub.client(story.tokens["wiki"]) as wiki:
            sets = (await wiki.post(path, json=body)).json()["sets"]
            await wiki.post(path, json={**body, "ack": list(sets), "maxEvents": 0})
        claims = [msgspec.json.decode(split_jws(raw.encode()).payload) for raw in sets.values()]
        return [each for each in claims if RISK_LEVEL_CHANGE in each["events"]]

    await story.play()
    (risen,) = await told()
    payload = risen["events"][RISK_LEVEL_CHANGE]
    assert risen["sub_id"] == {"format": "email", "email": ROSA}
    assert {name: payload[name] for name in ("principal", "current_level", "previous_level")} == {
        "principal": "USER",
        "current_level": "HIGH",
        "previous_level": "LOW",
    }
    assert payload["risk_reason"] == "device_not_compliant"

    hub.clock.advance(60)
    assert (await story.push()).status_code == 202
    await hub.settle()
    assert await told() == [], "it is as high as it was"
    hub.clock.advance(60)
    await story.push(compliant=True)
    await hub.settle()
    (fallen,) = await told()
    payload = fallen["events"][RISK_LEVEL_CHANGE]
    assert (payload["previous_level"], payload["current_level"]) == ("HIGH", "LOW")


async def test_a_broken_set_among_good_ones_changes_nothing_and_stops_nobody(hub: Hub) -> None:
    story = await begin(hub)
    refused = await story.push(exp=1)
    await story.play()

    assert refused.status_code == 400
    signals: list[dict[str, Any]] = (await story.get("/admin/v1/signals"))["items"]
    assert [signal["state"] for signal in signals] == ["assessed"]
