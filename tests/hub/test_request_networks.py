"""Requests carry what feeds say of their address, and policies decide by it (rows 42 and 43)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hub.demo.day import FEED
from risk.contexts.store import read_recorded
from risk.policies.facts import RequestFacts
from risk.policies.recorded import decode
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.mapped import know_networks
from tests.hub.story import ROSA, Story, begin
from tests.hub.test_inline import SID, request_from, state_of

SHELBYVILLE, VPN, HOSTING, NOWHERE = "198.51.100.7", "203.0.113.200", "203.0.113.230", "198.18.0.1"
#: what the shipped file says: AS, country, one of the categories
SAID = {
    SHELBYVILLE: (64501, "US", None),
    VPN: (64504, "DE", "VPN"),
    HOSTING: (64505, "DE", "HOSTING"),
}
RECORDS_MAX = 100


@dataclass
class Edge:
    """Whatever asks about sessions and sign-ins."""

    story: Story
    http: httpx2.AsyncClient

    async def ask(self, **context: Any) -> str:
        body = request_from(SHELBYVILLE) | context
        answer = await self.http.post(f"/v1/sessions/{SID}/evaluate", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["decision"])

    async def sign_in(self, ip: str, **more: object) -> dict[str, Any]:
        body = {"user": f"email:{ROSA}", "ip": ip, "phase": "before", **more}
        answer = await self.http.post("/v1/sign-ins/evaluate", json=body)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def contexts(self) -> list[RequestFacts]:
        """Return the facts of the session's requests as they were recorded, oldest first."""
        await state_of(self.story.hub).inline.behind.flush()
        now = self.story.hub.clock.now()
        async with self.story.hub.database.snapshot() as connection:
            found = await read_recorded(
                connection,
                "default",
                since=now - timedelta(days=1),
                until=now + timedelta(days=1),
                after=None,
                limit=RECORDS_MAX,
            )
        return [decode(each.facts)[0] for each in found]

    async def sign_ins(self) -> list[dict[str, Any]]:
        """Return the sign-ins as they are kept, oldest first."""
        await state_of(self.story.hub).sign_ins.log.flush()
        items: list[dict[str, Any]] = (await self.story.get("/v1/sign-ins"))["items"]
        return items[::-1]


@pytest.fixture
async def edge(hub: Hub, tmp_path: Path) -> AsyncIterator[Edge]:
    await know_networks(hub, tmp_path / "networks", FEED.read_text())
    async for edge in edge_of(hub):
        yield edge


async def edge_of(hub: Hub) -> AsyncIterator[Edge]:
    story = await begin(hub)
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Edge(story, http)
    await story.admin.aclose()


async def test_row_43_every_request_of_a_session_carries_its_network_or_that_none_is_known(
    edge: Edge,
) -> None:
    for ip in (*SAID, NOWHERE):
        await edge.ask(ip_chain=[ip])
    # What is no address, or not said, is unknown as well; the two are one context.
    await edge.ask(ip_chain=["not-an-address"])
    await edge.ask(ip_chain=[])

    facts = await edge.contexts()
    records = [each.record for each in facts]
    assert len(records) == len(SAID) + 2
    for (ip, (asn, country, category)), record in zip(SAID.items(), records, strict=False):
        assert record is not None
        assert (record.ip, record.known, record.asn, record.country) == (ip, True, asn, country)
        assert category is None or category in record.categories
    for record in records[len(SAID) :]:
        assert record is not None
        assert (record.known, record.asn, record.country) == (False, None, None)
        assert record.categories == frozenset()
    assert NOWHERE in {each.ip for each in records if each}


async def test_row_43_every_sign_in_carries_its_network_or_that_none_is_known(edge: Edge) -> None:
    for ip in (*SAID, NOWHERE):
        await edge.sign_in(ip)
    *known, unknown = await edge.sign_ins()
    assert [each["ip"] for each in known] == list(SAID)
    for each in known:
        asn, country, category = SAID[each["ip"]]
        shown = (each["network_known"], each["asn"], each["country"])
        assert shown == (True, asn, country)
        assert category is None or category in each["categories"]
    assert unknown["ip"] == NOWHERE
    names = ("network_known", "asn", "country", "region", "city", "categories")
    assert [unknown[name] for name in names] == [False, None, None, None, None, []]


# --- enrolment from a corner of the net ----------------------------------------------------------

#: in the first all three hold; in each other one does not
CORNER, OTHER_AS, OTHER_COUNTRY, NO_PROXY = "192.0.2.7", "192.0.2.71", "192.0.2.135", "192.0.2.199"
CORNERS = """network,country,asn,as_name,vpn
192.0.2.0/26,US,64510,Corner Net,true
192.0.2.64/26,US,64511,Other Net,true
192.0.2.128/26,DE,64510,Corner Net,true
192.0.2.192/26,US,64510,Corner Net,
"""
ZONE = {
    "name": "corner",
    "type": "DYNAMIC_V2",
    "asns": {"include": ["64510"]},
    "locations": {"include": [{"country": "US"}]},
    "ipServiceCategories": {"include": ["ALL_PROXIES_VPNS"]},
}
NO_ENROLMENT = {
    "name": "no-enrolment",
    "priority": 1,
    "when": {"action": ["enroll_factor"], "zones": {"include": ["corner"]}},
    "then": {"decision": "DENY"},
}


@pytest.fixture
async def corner(hub: Hub, tmp_path: Path) -> AsyncIterator[Edge]:
    """A hub of whose networks one is a bad corner, where no factor may be enrolled."""
    await know_networks(hub, tmp_path / "networks", CORNERS)
    async for edge in edge_of(hub):
        await edge.story.post("/admin/v1/zones", ZONE)
        path = "/admin/v1/policies/global-session"
        policy = {"mode": "enforce", "rules": [NO_ENROLMENT]}
        assert (await edge.story.admin.patch(path, json=policy)).is_success
        await hub.node.feed.refresh()
        yield edge


@ONE_ENGINE
async def test_row_42_c_enrolment_is_refused_only_where_all_three_hold(corner: Edge) -> None:
    refused = await corner.sign_in(CORNER, action="enroll_factor")
    assert refused["decision"] == "DENY"
    assert [each["rule"] for each in refused["violations"]] == ["no-enrolment"]
    for ip in (OTHER_AS, OTHER_COUNTRY, NO_PROXY, NOWHERE):
        assert (await corner.sign_in(ip, action="enroll_factor"))["decision"] == "ALLOW", ip


@ONE_ENGINE
async def test_row_42_c_whoever_signs_in_from_there_is_not_refused_by_it(corner: Edge) -> None:
    told = await corner.sign_in(CORNER)
    assert (told["decision"], told.get("violations", [])) == ("ALLOW", [])
    (kept,) = await corner.sign_ins()
    assert "corner" in kept["zones"]
