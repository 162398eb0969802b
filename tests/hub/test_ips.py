"""The risk events API: from a vendor's call to what a sign-in from that address gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

import risk.ips.service
from hub.app import make_app
from hub.node import open_node
from risk.ips.store import ip_claims
from risk.zones.model import BLOCKED_ID, EXEMPT_ID
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub, Outside, config_for
from tests.hub.statements import Watcher

BAD = "198.51.100.7"
EVENTS = "/api/v1/risk/events/ip"
SIGN_IN = "/v1/sign-ins/evaluate"
LIMIT_S = 20.0
STEP_UP = {
    "decision": "STEP_UP",
    "scope": "session",
    "reasons": ["global-session/high-step-up", "ip_reported_high:edge", "user_unknown"],
    "mode": "enforce",
    "cache_ttl_ms": 0,
    "login_risk": {"level": "HIGH", "reasons": ["ip_reported_high:edge"]},
}


def brief(told: Any) -> Any:
    """Return of an answer what it says of addresses, without how that was weighed."""
    risk = told["login_risk"]
    return {name: told[name] for name in STEP_UP} | {
        "login_risk": {"level": risk["level"], "reasons": risk["reasons"]}
    }


@dataclass
class Vendor:
    """A vendor that reports addresses, and the IdP that asks about them."""

    hub: Hub
    http: httpx2.AsyncClient
    admin: httpx2.AsyncClient
    provider_id: str
    client_id: str

    def event(
        self, ip: str = BAD, level: str = "HIGH", *, age_s: float = 0.0, **members: Any
    ) -> dict[str, Any]:
        at = self.hub.clock.now() - timedelta(seconds=age_s)
        subjects = [{"ip": ip, "riskLevel": level, "message": "seen"}]
        return {"timestamp": at.isoformat(), "subjects": subjects} | members

    async def report(self, *events: Any) -> httpx2.Response:
        answer = await self.http.post(EVENTS, json=list(events))
        await self.hub.node.changes.refresh()
        return answer

    async def sign_in(self, ip: str = BAD, user: str = "email:new@customer.example") -> Any:
        answer = await self.admin.post(SIGN_IN, json={"user": user, "ip": ip})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def change(self, **settings: Any) -> None:
        path = f"/admin/v1/providers/{self.provider_id}"
        assert (await self.admin.patch(path, json=settings)).is_success
        await self.hub.node.feed.refresh()


@pytest.fixture
async def vendor(hub: Hub, admin: httpx2.AsyncClient) -> AsyncIterator[Vendor]:
    assert (
        await admin.post("/admin/v1/policies:preset", json={"name": "standard", "mode": "enforce"})
    ).is_success
    made = await admin.post(
        "/admin/v1/clients", json={"name": "edge client", "scopes": ["signals.write"]}
    )
    provider = await admin.post(
        "/admin/v1/providers",
        json={"name": "edge", "issuer": "https://edge.example", "client_id": made.json()["id"]},
    )
    assert provider.status_code == 201, provider.text
    await hub.node.changes.refresh()
    async with hub.client(made.json()["token"]) as http:
        yield Vendor(hub, http, admin, provider.json()["id"], made.json()["id"])


# --- what follows from a report -----------------------------------------------------------------


async def test_row_27_a_reported_address_asks_for_a_step_up_and_no_other_does(
    vendor: Vendor,
) -> None:
    assert (await vendor.report(vendor.event())).status_code == 202

    assert brief(await vendor.sign_in()) == STEP_UP
    other = await vendor.sign_in("198.51.100.8")
    assert (other["decision"], other["login_risk"]["level"]) == ("ALLOW", "LOW")


#: exempt, blocklisted, the hop before blocklisted, reported -> decision, the steps that say why
LAYERS = [
    (False, False, False, "", "ALLOW", "exempt: no", "blocklist: no", "threat: low"),
    (False, False, False, "HIGH", "STEP_UP", "exempt: no", "blocklist: no", "threat: high"),
    (False, True, False, "", "DENY", "exempt: no", "blocklist: {here} is in", "threat: low"),
    (False, True, False, "HIGH", "DENY", "exempt: no", "blocklist: {here} is in", "threat: high"),
    (True, False, False, "", "ALLOW", "exempt: yes", "blocklist: no", "threat: not asked"),
    (True, False, False, "HIGH", "ALLOW", "exempt: yes", "blocklist: no", "threat: not asked"),
    (True, True, False, "HIGH", "ALLOW", "exempt: yes", "blocklist: no, {here} is in", "threat: n"),
    (True, True, True, "", "DENY", "exempt: yes", "blocklist: {before} is in", "threat: not asked"),
    (False, False, True, "MEDIUM", "DENY", "exempt: no", "blocklist: {before} is", "threat: med"),
]


@ONE_ENGINE
async def test_row_41_exempt_then_blocklist_then_threat_then_login_risk(vendor: Vendor) -> None:
    """A table of conflicting cases; the answer shows the path it took."""
    exempt: list[str] = []
    blocked: list[str] = []
    for number, (is_exempt, is_blocked, other_blocked, level, *_) in enumerate(LAYERS):
        here, before = f"203.0.113.{number}", f"192.0.2.{number}"
        exempt += [here] if is_exempt else []
        blocked += ([here] if is_blocked else []) + ([before] if other_blocked else [])
        if level:
            await vendor.report(vendor.event(here, level))
    for zone, listed in ((EXEMPT_ID, exempt), (BLOCKED_ID, blocked)):
        entries = {"gateways": [{"value": ip} for ip in listed]}
        answer = await vendor.admin.patch(f"/admin/v1/zones/{zone}", json=entries)
        assert answer.is_success, answer.text
    await vendor.hub.node.feed.refresh()

    for number, (*_, decision, exempted, blocklist, threat) in enumerate(LAYERS):
        here, before = f"203.0.113.{number}", f"192.0.2.{number}"
        question = {"user": "email:new@customer.example", "ip_chain": [before, here]}
        answer = await vendor.admin.post(SIGN_IN, json=question)
        told = answer.json()
        assert told["decision"] == decision, told
        names = [step.partition(":")[0] for step in told["decision_path"]]
        assert names == ["client", "exempt", "blocklist", "threat", "login"]
        client, *steps = told["decision_path"]
        assert client == f"client: {here}"
        wanted = [each.format(here=here, before=before) for each in (exempted, blocklist, threat)]
        assert [step.startswith(start) for step, start in zip(steps, wanted, strict=False)] == [
            True
        ] * 3, told["decision_path"]


async def test_the_report_is_heard_of_without_being_asked_for(
    vendor: Vendor, database_url: str
) -> None:
    """Another process, which had asked about the address before, hears of it from the feed."""
    async with open_node(config_for(database_url, index=1)) as node:
        transport = httpx2.ASGITransport(make_app(node, Outside()))
        async with httpx2.AsyncClient(
            transport=transport, base_url=ISSUER, headers=vendor.admin.headers
        ) as elsewhere:
            question = {"user": "email:new@customer.example", "ip": BAD}
            before = await elsewhere.post(SIGN_IN, json=question)
            assert before.json()["decision"] == "ALLOW"
            assert (await vendor.http.post(EVENTS, json=[vendor.event()])).status_code == 202
            async with asyncio.timeout(LIMIT_S):
                while brief((await elsewhere.post(SIGN_IN, json=question)).json()) != STEP_UP:  # noqa: ASYNC110 - asking is the point
                    await asyncio.sleep(0)  # the feed's turn


async def test_an_ipv4_address_is_the_same_however_it_is_written(vendor: Vendor) -> None:
    await vendor.report(vendor.event(f"::ffff:{BAD}"))
    assert (await vendor.sign_in(BAD))["decision"] == "STEP_UP"
    assert (await vendor.sign_in("::FFFF:c633:6407"))["decision"] == "STEP_UP"


async def test_medium_asks_for_a_step_up_by_the_standard_preset(vendor: Vendor) -> None:
    await vendor.report(vendor.event(level="MEDIUM"))
    decided = await vendor.sign_in()
    assert (decided["decision"], decided["login_risk"]["level"]) == ("STEP_UP", "MEDIUM")


async def test_it_ends_after_a_day_or_when_the_vendor_said(vendor: Vendor) -> None:
    until = (vendor.hub.clock.now() + timedelta(hours=1)).isoformat()
    await vendor.report(vendor.event(), vendor.event("198.51.100.9", expiresAt=until))
    vendor.hub.clock.advance(3_601)
    assert (await vendor.sign_in("198.51.100.9"))["decision"] == "ALLOW"
    vendor.hub.clock.advance(24 * 3600 - 3_602)
    assert (await vendor.sign_in())["decision"] == "STEP_UP"
    vendor.hub.clock.advance(2)
    assert (await vendor.sign_in())["decision"] == "ALLOW"


async def test_a_later_word_replaces_an_earlier_one_in_whatever_order_they_come(
    vendor: Vendor,
) -> None:
    await vendor.report(vendor.event(level="LOW"))
    await vendor.report(vendor.event(level="HIGH", age_s=60))
    assert (await vendor.sign_in())["decision"] == "ALLOW"
    await vendor.report(vendor.event(level="HIGH"))
    assert (await vendor.sign_in())["decision"] == "STEP_UP"


async def test_what_is_over_is_purged(vendor: Vendor) -> None:
    await vendor.report(vendor.event(), vendor.event("198.51.100.9"))
    vendor.hub.clock.advance(24 * 3600 + 1)
    await vendor.report(vendor.event("198.51.100.10"))
    async with vendor.hub.database.transaction() as connection:
        assert await risk.ips.service.purge(connection, now=vendor.hub.clock.now()) == 2
        left = (await connection.execute(sa.select(ip_claims.c.ip))).scalars().all()
    assert left == ["198.51.100.10"]


@ONE_ENGINE
async def test_a_warm_decision_about_an_address_asks_no_table_of_addresses(
    vendor: Vendor,
) -> None:
    await vendor.report(vendor.event())
    for ip in (BAD, "198.51.100.8"):
        await vendor.sign_in(ip)
    watcher = Watcher()
    watcher.watch(vendor.hub.database)
    for ip in (BAD, "198.51.100.8"):
        await vendor.sign_in(ip)
    assert not watcher.mentions(BAD, "SELECT")
    assert not watcher.mentions("198.51.100.8", "SELECT")


# --- what a word is worth -----------------------------------------------------------------------


@ONE_ENGINE
async def test_a_provider_that_is_only_logged_shows_what_it_would_have_led_to(
    vendor: Vendor,
) -> None:
    await vendor.change(mode="log_only")
    await vendor.report(vendor.event())
    decided = await vendor.sign_in()
    assert decided["decision"] == "ALLOW"
    assert brief(decided)["login_risk"] == {"level": "LOW", "reasons": []}
    assert decided["would_have"] == {
        "decision": "STEP_UP",
        "level": "HIGH",
        "reasons": ["ip_reported_high:edge"],
    }
    # What was said while it was only logged gains no weight afterwards.
    await vendor.change(mode="enforce")
    assert (await vendor.sign_in())["decision"] == "ALLOW"


@ONE_ENGINE
async def test_a_policy_that_monitors_shows_what_it_would_have_done(vendor: Vendor) -> None:
    await vendor.admin.post(
        "/admin/v1/policies:preset", json={"name": "standard", "mode": "monitor"}
    )
    await vendor.hub.node.feed.refresh()
    await vendor.report(vendor.event())
    decided = await vendor.sign_in()
    assert (decided["decision"], decided["would_have"]["decision"]) == ("ALLOW", "STEP_UP")


@ONE_ENGINE
@pytest.mark.parametrize("settings", [{"mode": "none"}, {"status": "inactive"}])
async def test_a_provider_that_is_off_means_nothing(vendor: Vendor, settings: Any) -> None:
    await vendor.report(vendor.event())
    await vendor.change(**settings)
    decided = await vendor.sign_in()
    assert decided["decision"] == "ALLOW"
    assert "would_have" not in decided


@ONE_ENGINE
async def test_a_cap_holds_for_addresses_too(vendor: Vendor) -> None:
    await vendor.report(vendor.event())
    await vendor.change(level_cap="MEDIUM")
    assert (await vendor.sign_in())["login_risk"]["level"] == "MEDIUM"


@ONE_ENGINE
async def test_a_client_without_a_provider_is_only_listened_to(vendor: Vendor, hub: Hub) -> None:
    async with hub.client(await hub.token("signals.write")) as unbound:
        assert (await unbound.post(EVENTS, json=[vendor.event()])).status_code == 202
    await hub.node.changes.refresh()
    assert (await vendor.sign_in())["would_have"]["decision"] == "STEP_UP"


@ONE_ENGINE
async def test_two_providers_are_not_bound_to_one_client(vendor: Vendor) -> None:
    other = {"name": "x", "issuer": "https://x.example", "client_id": vendor.client_id}
    assert (await vendor.admin.post("/admin/v1/providers", json=other)).status_code == 409


@ONE_ENGINE
async def test_who_says_what_of_an_address(vendor: Vendor) -> None:
    await vendor.report(vendor.event())
    found = (await vendor.admin.get(f"/v1/ip/{BAD}")).json()
    (claim,) = found.pop("claims")
    assert (found["ip"], found["public"]) == (BAD, True)
    assert (found["level"], found["would_be_level"]) == ("HIGH", "HIGH")
    assert (found["network"]["known"], found["sources"], found["zones"]) == (False, [], [])
    assert (claim["source"], claim["level"], claim["message"]) == ("edge", "HIGH", "seen")
    assert (await vendor.admin.get("/v1/ip/10.1.2.3")).json()["public"] is False
    assert (await vendor.admin.get("/v1/ip/nonsense")).status_code == 400
    assert (await vendor.http.get(f"/v1/ip/{BAD}")).status_code == 403


async def test_another_tenant_hears_nothing_of_it(vendor: Vendor, hub: Hub) -> None:
    await vendor.report(vendor.event())
    await hub.add_tenant("green")
    async with hub.client(await hub.token(tenant="green"), tenant="green") as green:
        decided = await green.post(SIGN_IN, json={"user": "email:x@y.example", "ip": BAD})
        assert brief(decided.json())["login_risk"] == {"level": "LOW", "reasons": []}
        assert (await green.get(f"/v1/ip/{BAD}")).json()["claims"] == []


# --- limits and refusals ------------------------------------------------------------------------


async def test_the_thirty_first_call_of_a_minute_is_refused(vendor: Vendor) -> None:
    answers = await asyncio.gather(
        *(vendor.http.post(EVENTS, json=[vendor.event()]) for _ in range(33))
    )
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [202] * 30 + [429] * 3
    late = await vendor.report(vendor.event())
    assert late.status_code == 429
    assert 1 <= int(late.headers["retry-after"]) <= 60
    vendor.hub.clock.advance(61)
    assert (await vendor.report(vendor.event())).status_code == 202


@ONE_ENGINE
async def test_what_is_not_acceptable_is_refused_with_the_place(vendor: Vendor) -> None:
    good = vendor.event()
    subject = good["subjects"][0]
    cases: list[tuple[Any, str]] = [
        ([], "/"),
        ([good] * 21, "/"),
        ({}, ""),
        ([7], "/0"),
        ([{**good, "timestamp": "yesterday"}], "/0/timestamp"),
        ([{**good, "timestamp": None}], "/0/timestamp"),
        ([{**good, "timestamp": "2999-01-01T00:00:00Z"}], "/0/timestamp"),
        ([{**good, "expiresAt": "2001-01-01T00:00:00Z"}], "/0/expiresAt"),
        ([{**good, "expiresAt": "2999-01-01T00:00:00Z"}], "/0/expiresAt"),
        ([{**good, "subjects": []}], "/0/subjects"),
        ([{**good, "subjects": [subject] * 101}], "/0/subjects"),
        ([{**good, "more": 1}], "/0/more"),
        ([{**good, "subjects": [{**subject, "riskLevel": "high"}]}], "/0/subjects/0/riskLevel"),
        ([{**good, "subjects": [{**subject, "message": "x" * 513}]}], "/0/subjects/0/message"),
    ]
    cases += [
        ([{**good, "subjects": [{**subject, "ip": ip}]}], "/0/subjects/0/ip")
        for ip in (
            "10.0.0.1", "192.168.1.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "::1",
            "fe80::1", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1", "224.0.0.1", "0.0.0.0",
            "1.2.3", "999.1.1.1", "1.2.3.4/8", "x" * 99, "", None, 7, ["1.2.3.4"],
        )
    ]  # fmt: skip
    for body, pointer in cases:
        answer = await vendor.http.post(EVENTS, json=body)
        assert answer.status_code == 400, answer.text
        if pointer:
            assert answer.json()["errors"][0].get("pointer") == pointer, answer.text
    for raw in (b"", b"[", b'[{"a":1,"a":2}]', b"\xff", b"[" * 5_000):
        sent = await vendor.http.post(
            EVENTS, content=raw, headers={"content-type": "application/json"}
        )
        assert sent.status_code == 400, raw
    form = await vendor.http.post(EVENTS, content=b"[]", headers={"content-type": "text/plain"})
    assert form.status_code == 415
    assert (await vendor.admin.get(f"/v1/ip/{BAD}")).json()["claims"] == []


@ONE_ENGINE
async def test_an_address_that_is_none_is_refused_at_sign_in(vendor: Vendor) -> None:
    wrong: tuple[object, ...] = ("", "x", 7, {}, "1.2.3.4 ")
    for ip in wrong:
        question = {"user": "email:a@b.example", "ip": ip}
        assert (await vendor.admin.post(SIGN_IN, json=question)).status_code == 400
