"""Who may only ask for decisions forges contexts and sign-ins: that is one word, and no HIGH."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from hub.demo.processes import until
from runtime.clock import SystemClock
from tests.hub.commands import LIMIT_S, Served
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import IDP, ROSA
from tests.hub.test_inline import SID, STOLEN, request_from
from tests.hub.test_sign_ins import AWAY, FIREFOX, PHONE, SIGN_IN, Gate, gate, routed

__all__ = ["gate"]

TOR, NEXT_TO_TOR = "198.51.100.77", "198.51.100.78"
PROVED = {"phase": "after", "outcome": "success", "amr": ["pwd", "otp"]}
ENROLLED = PROVED | {"action": "enroll_factor", "ip": TOR}


@pytest.fixture
async def forger(gate: Gate, hub: Hub) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield the client of a gateway: it may ask for decisions and nothing else."""
    edge = await gate.story.post("/admin/v1/apps", {"name": "edge", "kind": "gateway"})
    token = await hub.token("sessions.evaluate", app_id=edge["id"])
    await hub.node.feed.refresh()
    async with hub.client(token) as http:
        yield http


async def claim(http: httpx2.AsyncClient, **more: object) -> None:
    """Claim a sign-in of Rosa's."""
    body = {"user": f"email:{ROSA}", "device": PHONE, "user_agent": FIREFOX} | more
    answer = await http.post(SIGN_IN, json=body)
    assert answer.status_code == 200, answer.text


async def forge_session(gate: Gate, http: httpx2.AsyncClient) -> None:
    """Claim that Rosa's session is used by somebody else."""
    for body, level in ((request_from("192.0.2.7"), "LOW"), (STOLEN, "HIGH")):
        answer = await http.post(f"/v1/sessions/{SID}/evaluate", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["risk"]["level"] == level
        await routed(gate.app).state.inline.behind.flush()
        await gate.story.hub.node.changes.refresh()


@asynccontextmanager
async def partner(gate: Gate) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield the client of a provider that reports by itself."""
    client = {"name": "partner client", "scopes": ["signals.write"]}
    made = await gate.story.post("/admin/v1/clients", client)
    provider = {"name": "partner", "issuer": "https://p.example", "client_id": made["id"]}
    await gate.story.post("/admin/v1/providers", provider)
    await gate.story.hub.node.feed.refresh()
    async with gate.story.hub.client(made["token"]) as http:
        yield http


async def report_address(gate: Gate) -> None:
    """Let a vendor report an address at HIGH."""
    event = {
        "timestamp": gate.story.hub.clock.now().isoformat(),
        "subjects": [{"ip": TOR, "riskLevel": "HIGH"}],
    }
    async with partner(gate) as vendor:
        answer = await vendor.post("/api/v1/risk/events/ip", json=[event])
        assert answer.is_success, answer.text
    await gate.story.hub.node.changes.refresh()


async def allow_enrolment(gate: Gate) -> None:
    """Leave out the rules that deny an enrolment at high risk: denied, nothing was enrolled."""
    rule = {"name": "log", "priority": 1, "when": {}, "then": {"decision": "ALLOW"}}
    policy = {"name": "global-session", "mode": "enforce", "rules": [rule]}
    answer = await gate.story.admin.put("/admin/v1/policies/global-session", json=policy)
    assert answer.is_success, answer.text
    await gate.story.hub.node.feed.refresh()


async def standing(gate: Gate) -> tuple[str, set[str]]:
    """Return Rosa's level, and which findings about her are open."""
    await gate.settle()
    await gate.story.hub.settle()
    level = await gate.story.get(f"/api/v1/users/email:{ROSA}/risk")
    found = await gate.story.get(f"/v1/detections?user=email:{ROSA}")
    return level["riskLevel"], {each["name"] for each in found["items"]}


async def assert_untouched(gate: Gate) -> None:
    """Fail if Rosa was contained, or logged out anywhere."""
    contained = (await gate.story.get("/admin/v1/containments"))["items"]
    assert [each for each in contained if {"QUARANTINE", "UNIVERSAL_LOGOUT"} & {*each["actions"]}] \
        == []  # fmt: skip
    assert [each for each in gate.story.hub.outside.requests if "/gtr" in each.url] == []


@ONE_ENGINE
async def test_forged_contexts_and_forged_sign_ins_do_not_confirm_each_other(
    gate: Gate, forger: httpx2.AsyncClient
) -> None:
    """Findings of source classes `session` and `network` made HIGH, and so a containment."""
    await gate.know_rosa(6)
    await gate.succeed()
    gate.story.hub.clock.advance(600)
    await forge_session(gate, forger)
    await claim(forger, ip=AWAY, **PROVED)

    level, found = await standing(gate)
    assert found == {"session_influenced_user_risk", "impossible_travel", "new_country"}
    assert level == "MEDIUM"
    await assert_untouched(gate)


@ONE_ENGINE
@pytest.mark.parametrize("sign_ins", ["dormant", "enrolment"])
async def test_three_findings_of_callers_do_not_confirm_each_other_either(
    gate: Gate, forger: httpx2.AsyncClient, sign_ins: str
) -> None:
    await gate.know_rosa(6)
    if sign_ins == "dormant":
        gate.story.hub.clock.advance(91 * 24 * 3600)
        await claim(forger, ip=AWAY, **PROVED)
    await report_address(gate)
    await allow_enrolment(gate)
    await claim(forger, **ENROLLED)
    await forge_session(gate, forger)

    level, found = await standing(gate)
    assert {"session_influenced_user_risk", "entity_critical_action_from_high_threat_ip"} <= found
    assert ("dormant_account_use" in found) == (sign_ins == "dormant")
    assert level == "MEDIUM"
    await assert_untouched(gate)


@ONE_ENGINE
async def test_forged_guesses_make_no_user_high(gate: Gate, forger: httpx2.AsyncClient) -> None:
    """Counts are what callers say: with a forged session beside them they are still one source."""
    await gate.know_rosa(6)
    for _ in range(12):
        await claim(forger, ip=AWAY, phase="after", outcome="failure")
    assert await standing(gate) == ("LOW", {"brute_force_attack"})
    await claim(forger, ip=AWAY, **PROVED)
    await forge_session(gate, forger)

    level, found = await standing(gate)
    assert {"brute_force_attack", "session_influenced_user_risk"} <= found
    assert level == "MEDIUM"
    await assert_untouched(gate)


@ONE_ENGINE
async def test_row_8_b_an_identity_provider_says_that_a_factor_was_enrolled(gate: Gate) -> None:
    """It owns the account; whoever else may ask says the same at MEDIUM."""
    await report_address(gate)
    await allow_enrolment(gate)
    await claim(gate.idp, **ENROLLED)
    level, found = await standing(gate)
    assert (level, found) == ("HIGH", {"entity_critical_action_from_high_threat_ip"})


@ONE_ENGINE
async def test_row_7_a_factor_enrolled_at_an_address_that_nobody_reported_is_no_finding(
    gate: Gate,
) -> None:
    """The twin: the same enrolment, by the same identity provider, from the next address."""
    await report_address(gate)
    await allow_enrolment(gate)
    await claim(gate.idp, **ENROLLED | {"ip": NEXT_TO_TOR})
    assert await standing(gate) == ("LOW", set())
    # Nor is a sign-in from the reported one, nor an enrolment there that did not succeed.
    await claim(gate.idp, **ENROLLED | {"action": "sign_in"})
    await claim(gate.idp, **ENROLLED | {"outcome": "failure"})
    assert await standing(gate) == ("LOW", set())

    for _ in range(2):
        await claim(gate.idp, **ENROLLED)
    assert await standing(gate) == ("HIGH", {"entity_critical_action_from_high_threat_ip"})
    found = (await gate.story.get(f"/v1/detections?user=email:{ROSA}"))["items"]
    assert [each["level"] for each in found] == ["HIGH"]


@ONE_ENGINE
async def test_another_source_still_confirms_what_a_caller_says(
    gate: Gate, forger: httpx2.AsyncClient
) -> None:
    await forge_session(gate, forger)
    assert (await standing(gate))[0] == "MEDIUM"
    detection = {"name": "brute_force_attack", "sub_id": {"format": "email", "email": ROSA}}
    async with partner(gate) as vendor:
        answer = await vendor.post("/v1/signals/detections", json=detection)
        assert answer.status_code == 202, answer.text
    assert (await standing(gate))[0] == "HIGH"


@ONE_ENGINE
async def test_who_may_only_ask_registers_no_session_and_speaks_as_nobody(
    gate: Gate, forger: httpx2.AsyncClient
) -> None:
    session = {"iss": IDP, "user": f"email:{ROSA}", "device": "LT-0091-77"}
    assert (await forger.put("/v1/sessions/forged", json=session)).status_code == 403
    detection = {"name": "fraud_report", "sub_id": {"format": "email", "email": ROSA}}
    assert (await forger.post("/v1/signals/detections", json=detection)).status_code == 403


@ONE_ENGINE
@pytest.mark.parametrize(("kind", "level"), [("rp", "HIGH"), ("idp", "LOW")])
async def test_an_app_cannot_vouch_for_a_user_whose_session_was_stolen(
    gate: Gate, kind: str, level: str
) -> None:
    """A sign-in that cannot be phished remedies a hijack; an app could make one up.

    Whoever had the token of any app with `sessions.write` cleared the victim's HIGH that way.
    """
    hub = gate.story.hub
    email = {"format": "email", "email": ROSA}
    async with partner(gate) as vendor:
        told = {"name": "aitm_replay", "sub_id": email}
        assert (await vendor.post("/v1/signals/detections", json=told)).status_code == 202
        await hub.settle()
        hub.clock.advance(10)
        told = {"remedy": "sessions_revoked", "sub_id": email}
        assert (await vendor.post("/v1/signals/remedies", json=told)).status_code == 202
        await hub.settle()
    hub.clock.advance(10)
    issuer = f"https://{kind}.example"
    app = await gate.story.post(
        "/admin/v1/apps", {"name": f"other {kind}", "kind": kind, "issuer": issuer}
    )
    await hub.node.feed.refresh()
    async with hub.client(await hub.token("sessions.write", app_id=app["id"])) as http:
        session = {"user": f"email:{ROSA}", "amr": ["hwk"]}
        assert (await http.put("/v1/sessions/anew", json=session)).status_code == 201
    assert (await standing(gate))[0] == level


# --- the same against real processes ------------------------------------------------------------


@dataclass
class Victim:
    """Somebody with a session at a hub that is served, and a gateway that means them harm."""

    admin: httpx2.AsyncClient
    forger: httpx2.AsyncClient
    vendor: httpx2.AsyncClient
    user_id: str

    async def findings(self) -> set[str]:
        answer = await self.admin.get("/v1/detections", params={"user": self.user_id})
        return {each["name"] for each in answer.json()["items"]}

    async def level(self) -> str:
        answer = await self.admin.get(f"/api/v1/users/{self.user_id}/risk")
        return str(answer.json()["riskLevel"])


@pytest.fixture
async def victim(hub_process: Served) -> AsyncIterator[Victim]:
    def client(token: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            base_url=hub_process.issuer,
            headers={"authorization": f"Bearer {token}"},
            timeout=LIMIT_S,
        )

    admin = client(hub_process.token)

    async def make(of: str, /, **document: object) -> dict[str, Any]:
        answer = await admin.post(f"/admin/v1/{of}", json=document)
        assert answer.is_success, answer.text
        made: dict[str, Any] = answer.json()
        return made

    await make("policies:preset", name="standard", mode="enforce")
    rule = {"name": "log", "priority": 1, "when": {}, "then": {"decision": "ALLOW"}}
    policy = {"name": "global-session", "mode": "enforce", "rules": [rule]}
    assert (await admin.put("/admin/v1/policies/global-session", json=policy)).is_success
    edge = await make("apps", name="forging edge", kind="gateway")
    forger = await make("clients", name="f", scopes=["sessions.evaluate"], app_id=edge["id"])
    sensor = await make("clients", name="s", scopes=["signals.write"])
    await make("providers", name="s", issuer="https://s.example", client_id=sensor["id"])
    email = {"format": "email", "email": ROSA}
    user = await make("users", identifiers=[email])
    session = {"iss": IDP, "user": user["id"]}
    assert (await admin.put(f"/v1/sessions/{SID}", json=session)).status_code == 201
    async with client(forger["token"]) as gateway, client(sensor["token"]) as vendor:
        yield Victim(admin, gateway, vendor, user["id"])
    for policy_id in ("entity-risk", "global-session"):
        lax = await admin.patch(f"/admin/v1/policies/{policy_id}", json={"mode": "monitor"})
        assert lax.is_success, lax.text
    await admin.aclose()


async def test_a_served_hub_contains_nobody_on_the_word_of_a_gateway(victim: Victim) -> None:
    """Two findings at MEDIUM, of classes `network` and `session`, all of it made up."""
    event = {
        "timestamp": SystemClock().now().isoformat(),
        "subjects": [{"ip": TOR, "riskLevel": "HIGH"}],
    }
    assert (await victim.vendor.post("/api/v1/risk/events/ip", json=[event])).status_code == 202

    async def both_found() -> bool:
        await claim(victim.forger, **ENROLLED)
        for body in (request_from("192.0.2.7"), STOLEN):
            answer = await victim.forger.post(f"/v1/sessions/{SID}/evaluate", json=body)
            assert answer.status_code == 200, answer.text
        return {
            "session_influenced_user_risk",
            "entity_critical_action_from_high_threat_ip",
        } <= await victim.findings()

    await until("both findings are there", both_found)
    assert await victim.level() == "MEDIUM"
    contained = await victim.admin.get(f"/admin/v1/containments?user={victim.user_id}")
    assert {action for each in contained.json()["items"] for action in each["actions"]} <= {
        "NOTIFY",
        "REQUIRE_STEP_UP_NEXT",
    }
    # A second source's word makes it HIGH: the look was not too early.
    said = {"name": "brute_force_attack", "sub_id": {"format": "email", "email": ROSA}}
    assert (await victim.vendor.post("/v1/signals/detections", json=said)).status_code == 202

    async def is_high() -> bool:
        return await victim.level() == "HIGH"

    await until("the user is HIGH", is_high)
