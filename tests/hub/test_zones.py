"""Zones over HTTP: the admin kind, what it refuses, and how fast a process judges by a change."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

import risk.policies.store as policies_store
from risk.contexts.store import add_contexts
from risk.model import Level
from risk.networks.model import IPRecord
from risk.policies.facts import RequestFacts
from risk.policies.recorded import RecordedContext, encode
from risk.policy import DEFAULT_POLICY
from risk.verdict import Decision
from risk.zones.model import EXEMPT_ID
from risk.zones.service import Zones
from runtime.ids import new_id
from tests.hub.conftest import ONE_ENGINE, Hub

OFFICE = {
    "name": "office",
    "type": "IP",
    "gateways": [{"type": "CIDR", "value": "192.0.2.0/24", "reason": "HQ", "owner": "net team"}],
    "proxies": [{"value": "198.51.100.1-198.51.100.9"}],
}
ENHANCED = {
    "name": "anonymizers",
    "type": "DYNAMIC_V2",
    "usage": "BLOCKLIST",
    "asns": {"exclude": ["AS64500", 64501]},
    "locations": [{"country": "US", "region": "US-CA"}],
    "ipServiceCategories": {"include": ["ALL_ANONYMIZERS"]},
}


async def admin(hub: Hub, tenant: str = "default") -> httpx2.AsyncClient:
    return hub.client(await hub.token("admin.read", "admin.write", tenant=tenant), tenant=tenant)


def zones_of(hub: Hub) -> Zones:
    """Return zones as another process holds them."""
    return Zones(
        hub.node.database,
        hub.node.feed,
        networks=hub.node.networks,
        clock=hub.clock,
        trusted_proxies=("10.0.0.0/8", "nonsense"),
    )


async def add(client: httpx2.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post("/admin/v1/zones", json=body)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_a_zone_is_made_changed_and_shown_in_the_form_tools_know(hub: Hub) -> None:
    async with await admin(hub) as client:
        made = await add(client, OFFICE)
        assert made["gateways"] == [
            {"type": "CIDR", "value": "192.0.2.0/24", "reason": "HQ", "owner": "net team"}
        ]
        path = f"/admin/v1/zones/{made['id']}"
        changed = await client.patch(
            path, json={"gateways": [{"value": "203.0.113.1", "until": "2030-01-01T00:00:00Z"}]}
        )
        assert changed.json()["gateways"][0]["until"] == "2030-01-01T00:00:00Z"
        assert changed.json()["proxies"] == made["proxies"]
        replaced = await client.put(path, json={**OFFICE, "proxies": []})
        assert replaced.json()["proxies"] == []
        enhanced = await add(client, ENHANCED)
        assert enhanced["asns"] == {"include": [], "exclude": [64500, 64501]}
        assert enhanced["locations"]["include"] == [{"country": "US", "region": "US-CA"}]
        listed = (await client.get("/admin/v1/zones?usage=BLOCKLIST")).json()["items"]
        assert {zone["name"] for zone in listed} == {
            "anonymizers",
            "BlockedIpZone",
            "DefaultEnhancedDynamicZone",
        }
    audited = [entry.action for entry in await hub.audit()]
    assert [each for each in audited if each.startswith("zone.")] == [
        "zone.create",
        "zone.change",
        "zone.replace",
        "zone.create",
    ]


@ONE_ENGINE
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({**OFFICE, "gateways": [{"value": "1.1.1.1"}] * 151, "proxies": []}, "/gateways"),
        ({**OFFICE, "gateways": [{"value": "nowhere"}]}, "/gateways/0"),
        (
            {**OFFICE, "gateways": [{"value": "1.1.1.1", "until": "2030-01-01T00:00:00"}]},
            "/gateways/0",
        ),
        ({**OFFICE, "name": "x" * 129}, "/name"),
        ({**OFFICE, "type": "OTHER"}, "/type"),
        ({**OFFICE, "unknown": 1}, "/unknown"),
        ({**ENHANCED, "asns": [0]}, "/asns/include/0"),
        ({**ENHANCED, "asns": list(range(1, 77))}, "/asns/include"),
        ({**ENHANCED, "ipServiceCategories": ["MADE_UP"]}, "/ipServiceCategories/include/0"),
        ({**ENHANCED, "locations": [{"country": "USA"}]}, "/locations/include/0/country"),
        ({**ENHANCED, "proxyType": "Tor"}, "/proxyType"),
        ({"name": "d", "type": "DYNAMIC", "proxyType": "Others"}, "/proxyType"),
    ],
)
async def test_what_a_zone_may_not_hold_is_refused_with_a_pointer(
    hub: Hub, body: dict[str, Any], pointer: str
) -> None:
    async with await admin(hub) as client:
        answer = await client.post("/admin/v1/zones", json=body)
    assert answer.status_code == 400
    assert pointer in {each["pointer"] for each in answer.json()["errors"]}, answer.text


@ONE_ENGINE
async def test_two_zones_never_have_one_name_and_a_type_stays(hub: Hub) -> None:
    async with await admin(hub) as client:
        made = await add(client, OFFICE)
        assert (await client.post("/admin/v1/zones", json=OFFICE)).status_code == 409
        changed = await client.put(f"/admin/v1/zones/{made['id']}", json={**ENHANCED})
        assert changed.status_code == 400
        assert changed.json()["errors"][0]["pointer"] == "/type"


async def test_an_active_a_named_and_a_system_zone_cannot_be_deleted(hub: Hub) -> None:
    async with await admin(hub) as client:
        made = await add(client, OFFICE)
        path = f"/admin/v1/zones/{made['id']}"
        assert (await client.delete(path)).status_code == 409
        assert (await client.post(f"{path}/deactivate")).json()["status"] == "INACTIVE"
        await name_in_a_policy(hub, made["id"])
        named = await client.delete(path)
        assert named.status_code == 409
        assert "policy" in named.json()["detail"]
        renamed = await client.patch(path, json={"name": "headquarters"})
        assert renamed.status_code == 409
        await name_in_a_policy(hub, "another")
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(path)).status_code == 404
        system = f"/admin/v1/zones/{EXEMPT_ID}"
        assert (await client.delete(system)).status_code == 409
        assert (await client.post(f"{system}/deactivate")).status_code == 409


async def name_in_a_policy(hub: Hub, zone: str) -> None:
    async with hub.database.transaction() as connection:
        await policies_store.write_policy(
            connection, "default", DEFAULT_POLICY, now=hub.clock.now()
        )
        await connection.execute(
            policies_store.policies.update()
            .where(policies_store.policies.c.tenant_id == "default")
            .values(rules=[{"name": "at the office", "when": {"zones": [zone]}}])
        )


async def test_every_process_judges_by_a_changed_zone(hub: Hub) -> None:
    zones = zones_of(hub)
    async with await admin(hub) as client:
        before = await zones.judge("default", ["192.0.2.7", "10.1.2.3"])
        assert (before.client_ip, before.zones) == ("192.0.2.7", frozenset())
        made = await add(client, OFFICE)
        await hub.node.feed.refresh()
        inside = await zones.judge("default", ["192.0.2.7", "10.1.2.3"])
        assert inside.zones == {"office", made["id"]}
        assert (await zones.judge("other", ["192.0.2.7"])).zones == frozenset()
        await client.patch(
            "/admin/v1/zones/zon_blocked_ip", json={"gateways": [{"value": "192.0.2.7"}]}
        )
        await hub.node.feed.refresh()
        assert (await zones.judge("default", ["192.0.2.7"])).blocked_by == "zon_blocked_ip"
        await client.patch(
            f"/admin/v1/zones/{EXEMPT_ID}", json={"gateways": [{"value": "192.0.2.0/28"}]}
        )
        await hub.node.feed.refresh()
        spared = await zones.judge("default", ["192.0.2.7"])
        assert (spared.blocked_by, spared.is_exempt) == (None, True)


@ONE_ENGINE
async def test_an_entry_ends_by_itself_without_any_change(hub: Hub) -> None:
    zones = zones_of(hub)
    until = hub.clock.now().replace(microsecond=0)
    hub.clock.advance(-60)
    async with await admin(hub) as client:
        await add(
            client,
            {**OFFICE, "gateways": [{"value": "192.0.2.7", "until": until.isoformat()}]},
        )
    await hub.node.feed.refresh()
    assert (await zones.judge("default", ["192.0.2.7"])).zones
    hub.clock.advance(61)
    assert not (await zones.judge("default", ["192.0.2.7"])).zones
    assert not (await zones.judge("default", ["192.0.2.7"])).zones


@ONE_ENGINE
async def test_a_zone_explains_itself_and_is_tried_before_it_counts(hub: Hub) -> None:
    async with await admin(hub) as client:
        made = await add(client, OFFICE)
        path = f"/admin/v1/zones/{made['id']}/explain"
        answer = (await client.post(path, json={"ip": "192.0.2.7"})).json()
        assert answer["inside"] is True
        assert answer["checks"][-1]["why"] == "192.0.2.7 is in 192.0.2.0/24"
        behind = await client.post(path, json={"chain": ["192.0.2.7", "198.51.100.2"]})
        assert behind.json()["inside"] is True
        outside = (await client.post(path, json={"ip": "203.0.113.1"})).json()
        assert (outside["inside"], outside["checks"][0]["holds"]) == (False, False)
        wrong: tuple[dict[str, Any], ...] = (
            {},
            {"ip": "1.1.1.1", "chain": ["1.1.1.1"]},
            {"ip": "nowhere"},
            {"chain": []},
        )
        for body in wrong:
            assert (await client.post(path, json=body)).status_code == 400
        tried = await client.post(
            "/admin/v1/zones:dry-run",
            json={
                "zone": {**OFFICE, "name": "new"},
                "addresses": ["192.0.2.1", "192.0.2.2", "203.0.113.1", "nowhere"],
                "chains": [["192.0.2.9", "198.51.100.1"]],
            },
        )
        assert tried.json() == {"tried": 5, "inside": 3, "recorded": False}


async def test_a_zone_is_tried_on_the_requests_of_the_last_seven_days(hub: Hub) -> None:
    now = hub.clock.now()
    async with hub.database.transaction() as connection:
        await add_contexts(
            connection,
            [
                judged("192.0.2.1", now - timedelta(hours=1)),
                judged("203.0.113.1", now - timedelta(days=6)),
                judged("192.0.2.2", now - timedelta(days=8)),
                judged("192.0.2.3", now - timedelta(hours=1), tenant_id="green"),
            ],
        )
    async with await admin(hub) as client:
        tried = await client.post("/admin/v1/zones:dry-run", json={"zone": OFFICE})
    assert tried.json() == {"tried": 2, "inside": 1, "recorded": True}


def judged(ip: str, at: datetime, *, tenant_id: str = "default") -> RecordedContext:
    facts = RequestFacts(kind="session", level=Level.LOW, record=IPRecord(ip=ip, known=False))
    return RecordedContext(
        tenant_id=tenant_id,
        context_id=new_id("ctx"),
        user_id="usr_1",
        session_id=None,
        at=at,
        facts=encode(facts, ()),
        decision=Decision.ALLOW,
    )


async def test_a_zone_of_another_tenant_is_not_there(hub: Hub) -> None:
    await hub.add_tenant("green")
    async with await admin(hub) as client, await admin(hub, "green") as foreign:
        made = await add(client, OFFICE)
        path = f"/admin/v1/zones/{made['id']}"
        assert (await foreign.get(path)).status_code == 404
        assert (await foreign.patch(path, json={"name": "x"})).status_code == 404
        assert (await foreign.delete(path)).status_code == 404
        assert (await foreign.post(f"{path}/explain", json={"ip": "1.1.1.1"})).status_code == 404
        assert (await foreign.post(f"{path}/activate")).status_code == 404
        await add(foreign, OFFICE)


@ONE_ENGINE
async def test_row_41_a_blocklisted_sign_in_is_denied_unless_it_is_exempt(hub: Hub) -> None:
    """Over HTTP, in the order of the layers; an address made up before one gains nothing."""
    async with await admin(hub) as client, hub.client(await hub.token("sessions.evaluate")) as idp:
        await client.patch(
            "/admin/v1/zones/zon_blocked_ip", json={"gateways": [{"value": "192.0.2.0/24"}]}
        )
        await client.patch(
            f"/admin/v1/zones/{EXEMPT_ID}", json={"gateways": [{"value": "192.0.2.7"}]}
        )
        await hub.node.feed.refresh()

        async def decided(**where: object) -> str:
            body = {"user": "email:tina@customer.example", **where}
            answer = await idp.post("/v1/sign-ins/evaluate", json=body)
            assert answer.status_code == 200, answer.text
            decision: str = answer.json()["decision"]
            return decision

        assert await decided(ip="192.0.2.1") == "DENY"
        assert await decided(ip="192.0.2.7") != "DENY"
        assert await decided(ip="203.0.113.1") != "DENY"
        assert await decided(ip_chain=["192.0.2.7", "192.0.2.1"]) == "DENY"
        assert await decided(ip_chain=["192.0.2.1", "192.0.2.7"]) == "DENY"


@ONE_ENGINE
async def test_zones_need_the_admins_scopes(hub: Hub) -> None:
    async with hub.client(await hub.token("risk.read", "sessions.evaluate")) as client:
        assert (await client.get("/admin/v1/zones")).status_code == 403
        assert (await client.post("/admin/v1/zones", json=OFFICE)).status_code == 403
    async with hub.client() as nobody:
        assert (await nobody.get("/admin/v1/zones")).status_code == 401
