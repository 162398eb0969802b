"""Live sessions, request by request: contexts, step-ups, ends, and what is only told."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from hub.app import make_app
from hub.inline.evaluator import Evaluator
from hub.node import open_node
from risk.contexts.store import read_recorded
from risk.policies.recorded import decode
from runtime.database import Database
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub, config_for
from tests.hub.story import IDP, ROSA, Story, begin
from tests.risk.test_contexts import CHROME, FIREFOX

SID = "sid-rosa"
HOME = "198.51.100.7"
OFFICE = "203.0.113.9"
LAPTOP = "a" * 64
THIEF = "b" * 64
EC_KEY = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}
OF_FEEDS = re.compile(r"^(BEGIN|COMMIT|ROLLBACK)|FROM (changes|config_versions)\b")


def request_from(ip: str, **others: Any) -> dict[str, Any]:
    """Return the body of a question: Rosa's laptop at an address."""
    body: dict[str, Any] = {
        "ip_chain": [ip],
        "ua": CHROME,
        "device": {"token_hash": LAPTOP},
        "iss": IDP,
    }
    return body | others


STOLEN = request_from(OFFICE, ua=FIREFOX, device={"token_hash": THIEF})


@dataclass
class Gateway:
    """Whatever stands before the apps and asks."""

    story: Story
    http: httpx2.AsyncClient
    closing: list[httpx2.AsyncClient] = field(default_factory=list)

    @property
    def inline(self) -> Evaluator:
        evaluator: Evaluator = state_of(self.story.hub).inline
        return evaluator

    async def ask(self, body: dict[str, Any], sid: str = SID) -> dict[str, Any]:
        answer = await self.http.post(f"/v1/sessions/{sid}/evaluate", json=body)
        assert answer.status_code == 200, answer.text
        decided: dict[str, Any] = answer.json()
        return decided

    async def decision(self, body: dict[str, Any], sid: str = SID) -> str:
        return str((await self.ask(body, sid))["decision"])

    async def settle(self) -> None:
        """Write what is written behind answers, and hear of it."""
        await self.inline.behind.flush()
        await self.story.hub.node.changes.refresh()


def state_of(served: Any) -> Any:
    """Return the state of an application (`served.app`), behind its middleware."""
    app: Any = served.app
    while not hasattr(app, "state"):
        app = getattr(app, "_app", None) or app._inner
    return app.state


@pytest.fixture
async def gateway(hub: Hub) -> AsyncIterator[Gateway]:
    story = await begin(hub)
    async with hub.client(await hub.token("sessions.evaluate")) as http:
        yield Gateway(story, http)
    await story.admin.aclose()


@asynccontextmanager
async def another_process(gateway: Gateway) -> AsyncIterator[Gateway]:
    """Run a second process of the same hub, and ask it as the first one is asked."""
    hub = gateway.story.hub
    token = gateway.http.headers["authorization"]
    async with open_node(config_for(hub.node.config.database_url, index=1)) as node:
        # It is the same time everywhere.
        app = make_app(replace(node, clock=hub.clock), hub.outside)
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url=ISSUER, headers={"authorization": token}
        ) as http:
            yield Gateway(gateway.story, http)


# --- contexts -----------------------------------------------------------------------------------


async def test_the_first_context_is_the_anchor_and_stays_quiet(gateway: Gateway) -> None:
    for _ in range(3):
        decided = await gateway.ask(request_from(HOME))
        assert decided["decision"] == "ALLOW"
        assert decided["risk"] == {"level": "LOW", "score": 0.0, "reasons": []}
        assert "changed" not in decided
        await gateway.settle()


async def test_row_11_another_network_asks_for_one_step_up(gateway: Gateway) -> None:
    await gateway.ask(request_from(HOME))
    await gateway.settle()

    decided = await asyncio.gather(*(gateway.ask(request_from(OFFICE)) for _ in range(10)))

    assert {each["decision"] for each in decided} == {"STEP_UP"}
    assert len({each["step_up"]["id"] for each in decided}) == 1
    assert Counter(each["step_up"]["new"] for each in decided) == {True: 1, False: 9}
    first = decided[0]
    assert (first["scope"], first["max_age"], first["mode"]) == ("session", 0, "enforce")
    assert first["changed"] == {
        "causes": ["ipAddress.change"],
        "classes": ["asn"],
        "old": {"ip": HOME},
        "new": {"ip": OFFICE},
    }
    assert first["risk"]["level"] == "MEDIUM"
    assert [each["rule"] for each in first["violations"]] == ["medium-step-up"]
    assert len({each["trace_id"] for each in decided}) == 1
    # Where the session was accepted nothing is asked.
    assert await gateway.decision(request_from(HOME)) == "ALLOW"


async def test_row_11_parallel_requests_over_two_processes_share_one_step_up(
    gateway: Gateway,
) -> None:
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    async with another_process(gateway) as other:
        decided = await asyncio.gather(
            *(each.ask(request_from(OFFICE)) for each in (gateway, other) * 5)
        )
    assert {each["decision"] for each in decided} == {"STEP_UP"}
    assert len({each["step_up"]["id"] for each in decided}) == 1
    assert sum(each["step_up"]["new"] for each in decided) == 1


async def test_small_changes_are_let_pass_and_joined(gateway: Gateway) -> None:
    await gateway.ask(request_from(HOME))
    decided = await gateway.ask(request_from("198.51.100.99"))
    assert decided["decision"] == "ALLOW"
    assert decided["changed"]["classes"] == ["minor"]
    await gateway.settle()
    assert "changed" not in await gateway.ask(request_from("198.51.100.99"))


async def test_row_15_a_stolen_cookie_is_stopped_and_its_owner_goes_on(gateway: Gateway) -> None:
    await gateway.ask(request_from(HOME))
    await gateway.settle()

    stolen = await gateway.ask(STOLEN)
    assert stolen["decision"] == "TERMINATE"
    assert stolen["scope"] == "session"
    assert stolen["risk"]["level"] == "HIGH"
    assert set(stolen["changed"]["classes"]) == {"device", "os", "user_agent", "asn"}

    await gateway.settle()
    assert await gateway.decision(STOLEN) == "TERMINATE"
    assert await gateway.decision(request_from(HOME)) == "ALLOW"


async def test_to_leave_out_the_token_is_no_way_around(gateway: Gateway) -> None:
    await gateway.ask(request_from(HOME))
    bare = request_from(HOME, device={})
    assert await gateway.decision(bare) == "STEP_UP"
    assert await gateway.decision(request_from(HOME, ua=None)) == "STEP_UP"


async def test_what_another_caller_does_not_tell_is_no_loss(gateway: Gateway) -> None:
    await gateway.ask(request_from(HOME))
    hub = gateway.story.hub
    async with hub.client(await hub.token("sessions.evaluate")) as app:
        answer = await app.post(
            f"/v1/sessions/{SID}/evaluate", json={"iss": IDP, "ip_chain": [HOME]}
        )
    assert answer.json()["decision"] == "ALLOW"


async def test_two_machines_in_turns_are_a_fork(gateway: Gateway) -> None:
    """A thief with a copy of everything but the device token, and the owner, at the same time."""
    clone = request_from(HOME, device={"token_hash": THIEF})
    await gateway.ask(request_from(HOME))
    assert await gateway.decision(clone) != "ALLOW"
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    decided = await gateway.ask(clone)
    assert decided["decision"] == "TERMINATE"
    assert "fork" in decided["changed"]["classes"]
    assert await gateway.decision(request_from(HOME)) == "ALLOW"


# --- step-ups -----------------------------------------------------------------------------------


async def asked(gateway: Gateway) -> str:
    """Bring Rosa to the office, where she is asked for a step-up; return its id."""
    await gateway.ask(request_from(HOME))
    await gateway.settle()
    return str((await gateway.ask(request_from(OFFICE)))["step_up"]["id"])


async def answer(
    gateway: Gateway, step_up_id: str, outcome: str = "passed", **others: Any
) -> httpx2.Response:
    return await gateway.story.admin.post(
        f"/v1/sessions/{SID}/step-ups/{step_up_id}",
        json={"iss": IDP, "outcome": outcome, **others},
    )


async def test_row_11_after_the_step_up_the_office_is_quiet(gateway: Gateway) -> None:
    step_up_id = await asked(gateway)
    for _ in range(2):  # a repeat is heard again and changes nothing
        assert (await answer(gateway, step_up_id, acr="mfa", amr=["hwk"])).status_code == 204
    await gateway.settle()

    decided = await gateway.ask(request_from(OFFICE))
    assert (decided["decision"], decided["reasons"]) == ("ALLOW", [])
    assert "changed" not in decided
    # What is near the office is near what was accepted.
    near = await gateway.ask(request_from("203.0.113.77"))
    assert (near["decision"], near["changed"]["classes"]) == ("ALLOW", ["minor"])
    # Nobody else profits: the thief is not the one who proved anything.
    assert await gateway.decision(STOLEN) == "TERMINATE"
    session = await gateway.story.get(f"/v1/sessions/{SID}?iss={IDP}")
    assert (session["acr"], session["amr"]) == ("mfa", ["hwk"])
    assert session["auth_time"]


async def test_row_11_refusing_the_prompt_ends_the_session(gateway: Gateway) -> None:
    step_up_id = await asked(gateway)
    assert (await answer(gateway, step_up_id, "refused")).status_code == 204
    await gateway.settle()
    for body in (request_from(OFFICE), request_from(HOME)):
        assert await gateway.decision(body) == "TERMINATE"
    assert (await answer(gateway, step_up_id)).status_code == 409


async def test_the_identity_provider_may_say_it_with_a_refresh(gateway: Gateway) -> None:
    gateway.story.hub.clock.advance(1)
    await asked(gateway)
    now = gateway.story.hub.clock.now()
    refresh: dict[str, Any] = {"iss": IDP, "user": f"email:{ROSA}"}
    context = {"ip": OFFICE, "ua": CHROME, "device": {"token_hash": LAPTOP}}
    path = f"/v1/sessions/{SID}"
    # A refresh without a fresh proof is no proof: whoever holds the cookie can cause one.
    assert (await gateway.story.admin.put(path, json={**refresh, "context": context})).is_success
    await gateway.settle()
    assert await gateway.decision(request_from(OFFICE)) == "STEP_UP"

    fresh = {**refresh, "context": context, "auth_time": now.isoformat()}
    assert (await gateway.story.admin.put(path, json=fresh)).is_success
    await gateway.settle()
    assert await gateway.decision(request_from(OFFICE)) == "ALLOW"
    assert await gateway.decision(STOLEN) == "TERMINATE"


async def refreshed(gateway: Gateway, **said: Any) -> str:
    """Let the identity provider refresh Rosa's session at the office; return what is decided."""
    context = {"ip": OFFICE, "ua": CHROME, "device": {"token_hash": LAPTOP}}
    body = {"iss": IDP, "user": f"email:{ROSA}", "context": context, **said}
    assert (await gateway.story.admin.put(f"/v1/sessions/{SID}", json=body)).is_success
    await gateway.settle()
    return await gateway.decision(request_from(OFFICE))


async def with_policy(gateway: Gateway, **wanted: Any) -> None:
    """Make sessions of the tenant prove something when their network changes."""
    rule = {
        "name": "another-network",
        "priority": 10,
        "when": {"changes": {"include": ["network", "asn", "country"]}},
        "then": {"decision": "STEP_UP", **wanted},
    }
    policy = {"name": "global-session", "mode": "enforce", "rules": [rule]}
    story = gateway.story
    changed = await story.admin.put("/admin/v1/policies/global-session", json=policy)
    assert changed.is_success, changed.text
    await story.hub.node.feed.refresh()


@pytest.mark.requirement("STEP-4", "STEP-5", "STEP-6")
async def test_a_weaker_or_older_proof_than_was_asked_for_is_none(gateway: Gateway) -> None:
    clock = gateway.story.hub.clock
    await with_policy(gateway, acr="phr phrh", max_age=0)
    clock.advance(60)
    before = clock.now().isoformat()
    clock.advance(60)
    step_up_id = await asked(gateway)
    clock.advance(10)
    now = clock.now().isoformat()
    # The identity provider could not do better, which OpenID Connect lets it say with a session.
    for weak in ({"auth_time": now, "acr": "mfa"}, {"auth_time": now}):
        assert await refreshed(gateway, **weak) == "STEP_UP", weak
        assert (await answer(gateway, step_up_id, **weak)).status_code == 409
    # Strong, but from before anybody asked; and strong, but nobody says when.
    assert await refreshed(gateway, acr="phr", auth_time=before) == "STEP_UP"
    assert (await answer(gateway, step_up_id, acr="phr", auth_time=before)).status_code == 409
    assert await refreshed(gateway, acr="phr") == "STEP_UP"
    assert (await gateway.ask(request_from(OFFICE)))["step_up"]["id"] == step_up_id

    # What is known already proves nothing more, however it is called now.
    assert await refreshed(gateway, acr="phrh", auth_time=now) == "STEP_UP"
    clock.advance(10)
    assert await refreshed(gateway, acr="phrh", auth_time=clock.now().isoformat()) == "ALLOW"


@pytest.mark.requirement("STEP-6")
async def test_an_age_that_is_allowed_is_enough(gateway: Gateway) -> None:
    clock = gateway.story.hub.clock
    await with_policy(gateway, max_age=300)
    signed_in = clock.now().isoformat()
    clock.advance(200)
    step_up_id = await asked(gateway)
    clock.advance(106)
    assert (await answer(gateway, step_up_id, auth_time=signed_in)).status_code == 409
    clock.advance(-2)
    assert (await answer(gateway, step_up_id, auth_time=signed_in)).status_code == 204
    await gateway.settle()
    assert await gateway.decision(request_from(OFFICE)) == "ALLOW"


@pytest.mark.requirement("STEP-8")
async def test_a_step_up_that_nobody_finishes_is_given_up_and_asked_again(
    gateway: Gateway,
) -> None:
    clock = gateway.story.hub.clock
    first = await asked(gateway)
    clock.advance(120)
    for _ in range(2):
        again = (await gateway.ask(request_from(OFFICE)))["step_up"]
        assert again == {"id": first, "new": False}
    clock.advance(1)
    answers = await asyncio.gather(*(gateway.ask(request_from(OFFICE)) for _ in range(5)))
    assert {each["decision"] for each in answers} == {"STEP_UP"}
    assert sorted(each["step_up"]["new"] for each in answers) == [False] * 4 + [True]
    (second,) = {each["step_up"]["id"] for each in answers}
    assert second != first
    # The word on the first comes too late: it is about a question nobody asks any more.
    assert (await answer(gateway, first)).status_code == 404
    # Nobody was asked after the second one, so a late word on it counts.
    clock.advance(600)
    assert (await answer(gateway, second)).status_code == 204
    await gateway.settle()
    assert await gateway.decision(request_from(OFFICE)) == "ALLOW"


async def test_the_context_of_the_registration_is_the_anchor(gateway: Gateway) -> None:
    body = {
        "iss": IDP,
        "user": f"email:{ROSA}",
        "context": {"ip": HOME, "ua": CHROME, "device": {"token_hash": LAPTOP}},
    }
    assert (await gateway.story.admin.put("/v1/sessions/new", json=body)).status_code == 201
    assert await gateway.decision(STOLEN, "new") == "TERMINATE"
    assert await gateway.decision(request_from(HOME), "new") == "ALLOW"


@ONE_ENGINE
async def test_the_word_on_a_step_up_is_checked(gateway: Gateway) -> None:
    step_up_id = await asked(gateway)
    assert (await answer(gateway, "sup_unknown")).status_code == 404
    assert (await answer(gateway, step_up_id, "maybe")).status_code == 400
    assert (await answer(gateway, step_up_id, acr=7)).status_code == 400
    assert (await answer(gateway, step_up_id, amr=["x"] * 99)).status_code == 400
    before = await answer(gateway, step_up_id, auth_time="2020-01-01T00:00:00Z")
    assert before.status_code == 409
    hub = gateway.story.hub
    path = f"/v1/sessions/{SID}/step-ups/{step_up_id}"
    # A gateway asks; only who registers sessions may say how a step-up ended.
    assert (await gateway.http.post(path, json={"iss": IDP})).status_code == 403
    await hub.add_tenant("blue")
    token = await hub.token("sessions.write", tenant="blue")
    async with hub.client(token, tenant="blue") as foreign:
        said = await foreign.post(path, json={"iss": IDP, "outcome": "passed"})
    assert said.status_code == 404
    assert await gateway.decision(request_from(OFFICE)) == "STEP_UP"


@ONE_ENGINE
@pytest.mark.parametrize(
    ("member", "value", "pointer"),
    [
        ("context", [], "/context"),
        ("context", {}, "/context/ip"),
        ("context", {"ip": HOME, "device": {"signals": 7}}, "/device/signals"),
        ("auth_time", "noon", "/auth_time"),
        ("binding", {}, "/binding/jwk"),
        ("binding", {"jwk": {"kty": "oct", "k": "AAAA"}}, "/binding/jwk"),
        (
            "binding",
            {"jwk": {"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "d": "d"}},
            "/binding/jwk",
        ),
        ("binding", {"jwk": {"kty": "EC", "crv": "P-521", "x": "x", "y": "y"}}, "/binding/jwk/crv"),
    ],
)
async def test_a_wrong_registration_is_told_what_is_wrong(
    gateway: Gateway, member: str, value: object, pointer: str
) -> None:
    body = {"iss": IDP, "user": f"email:{ROSA}", member: value}
    refused = await gateway.story.admin.put("/v1/sessions/new", json=body)
    assert refused.status_code == 400
    assert [each["pointer"] for each in refused.json()["errors"]] == [pointer]


# --- records ------------------------------------------------------------------------------------


async def test_contexts_are_recorded_once_and_policies_can_be_tried_on_them(
    gateway: Gateway,
) -> None:
    for body in (request_from(HOME), request_from(HOME), request_from(OFFICE), STOLEN, STOLEN):
        await gateway.ask(body)
    await gateway.settle()
    now = gateway.story.hub.clock.now()
    async with gateway.story.hub.database.snapshot() as connection:
        found = await read_recorded(
            connection,
            "default",
            since=now - timedelta(hours=1),
            until=now + timedelta(hours=1),
            after=None,
            limit=10,
        )
    assert [each.decision.name for each in found] == ["ALLOW", "STEP_UP", "TERMINATE"]
    facts, _ = decode(found[1].facts)
    assert (facts.kind, facts.level.name, facts.changes) == ("session", "MEDIUM", ("asn",))


# --- levels -------------------------------------------------------------------------------------


async def test_a_users_level_is_seen_by_the_next_request(gateway: Gateway) -> None:
    rules = [
        {
            "name": "risky-user",
            "priority": 1,
            "when": {"user_level": "MEDIUM"},
            "then": {"decision": "STEP_UP", "acr": "mfa", "max_age": 0},
        }
    ]
    story = gateway.story
    current = await story.get("/admin/v1/policies/global-session")
    changed = await story.admin.put(
        "/admin/v1/policies/global-session",
        json={"name": current["name"], "mode": "enforce", "rules": rules},
    )
    assert changed.is_success, changed.text
    await story.hub.node.feed.refresh()
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    said = await story.admin.put(f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "MEDIUM"})
    assert said.is_success
    await gateway.settle()
    decided = await gateway.ask(request_from(HOME))
    assert (decided["decision"], decided["acr"], decided["max_age"]) == ("STEP_UP", "mfa", 0)
    # Another acr than was asked for is no answer.
    step_up_id = decided["step_up"]["id"]
    assert (await answer(gateway, step_up_id, acr="pwd")).status_code == 409
    assert (await answer(gateway, step_up_id, acr="mfa")).status_code == 204
    await gateway.settle()
    assert await gateway.decision(request_from(HOME)) == "ALLOW"


async def test_an_idle_session_is_judged_when_a_level_moves(gateway: Gateway) -> None:
    """Nobody uses the session: the level alone ends it, before the next request."""
    story = gateway.story
    rules = [
        {
            "name": "risky-user",
            "priority": 1,
            "when": {"user_level": "MEDIUM"},
            "then": {"decision": "TERMINATE"},
        }
    ]
    changed = await story.admin.put(
        "/admin/v1/policies/global-session",
        json={"name": "global-session", "mode": "enforce", "rules": rules},
    )
    assert changed.is_success, changed.text
    await story.hub.node.feed.refresh()
    assert await gateway.decision(request_from(HOME)) == "ALLOW"
    await gateway.settle()
    assert await gateway.decision(request_from(HOME)) == "ALLOW"

    said = await story.admin.put(f"/api/v1/users/email:{ROSA}/risk", json={"riskLevel": "MEDIUM"})
    assert said.is_success
    await gateway.settle()
    await state_of(story.hub).reviews.work_off()

    session = await story.get(f"/v1/sessions/{SID}?iss={IDP}")
    assert session["live"] is False


async def test_row_8_c_a_session_at_high_risk_is_a_finding_about_its_user(gateway: Gateway) -> None:
    await gateway.ask(request_from(HOME))
    for _ in range(3):
        await gateway.ask(STOLEN)
    await gateway.settle()
    await gateway.story.hub.settle()
    found = await gateway.story.get(f"/v1/detections?user=email:{ROSA}")
    (detection,) = found["items"]
    assert (detection["name"], detection["level"]) == ("session_influenced_user_risk", "MEDIUM")
    session = await gateway.story.get(f"/v1/sessions/{SID}?iss={IDP}")
    assert session["session_id"] in detection["related"]
    risk = await gateway.story.get(f"/v1/risk/users/email:{ROSA}")
    assert risk["level"] == "MEDIUM"


async def test_row_7_a_session_at_medium_risk_is_no_finding_about_its_user(
    gateway: Gateway,
) -> None:
    """The twin of row 8(c): another network alone, asked about again and again."""
    await gateway.ask(request_from(HOME))
    for _ in range(3):
        decided = await gateway.ask(request_from(OFFICE))
        assert decided["risk"]["level"] == "MEDIUM"
        await gateway.settle()
    await gateway.story.hub.settle()
    about = f"email:{ROSA}"
    assert (await gateway.story.get(f"/v1/detections?user={about}"))["items"] == []
    assert (await gateway.story.get(f"/v1/risk/users/{about}"))["level"] == "LOW"


# --- key-bound sessions -------------------------------------------------------------------------


DEVICE_KEY = JWK.generate(kty="EC", crv="P-256")
THIEFS_KEY = JWK.generate(kty="EC", crv="P-256")


def proof_of(challenge: str, key: JWK = DEVICE_KEY, typ: str = "dbsc+jwt") -> dict[str, Any]:
    """Return what the device of a key-bound session sends."""
    jws = JWS(json.dumps({"jti": challenge}).encode())
    jws.add_signature(key, protected=json.dumps({"alg": "ES256", "typ": typ}))
    return {"proof": jws.serialize(compact=True)}


@pytest.fixture
async def bound(gateway: Gateway) -> Gateway:
    """A session "bound" whose device holds a key."""
    body = {
        "iss": IDP,
        "user": f"email:{ROSA}",
        "context": {"ip": HOME, "ua": CHROME, "device": {"token_hash": LAPTOP}},
        "binding": {"jwk": DEVICE_KEY.export_public(as_dict=True)},
    }
    made = await gateway.story.admin.put("/v1/sessions/bound", json=body)
    assert made.status_code == 201, made.text
    return gateway


@pytest.mark.requirement("EGW-80")
async def test_row_15_a_copied_cookie_without_the_key_dies_at_the_next_refresh(
    bound: Gateway,
) -> None:
    """The thief has everything but the key: cookie, token, browser, and even the address."""
    decided = await bound.ask(request_from(HOME), "bound")
    assert decided["decision"] == "ALLOW"
    bound.story.hub.clock.advance(11 * 60)

    assert await bound.decision(request_from(HOME), "bound") == "STEP_UP"
    guess = request_from(HOME, dbsc=proof_of(decided["dbsc"]["challenge"], THIEFS_KEY))
    ended = await bound.ask(guess, "bound")
    assert ended["decision"] == "TERMINATE"
    assert ended["changed"]["classes"] == ["binding_lost"]


async def test_a_proof_of_the_key_keeps_the_session_and_is_good_once(bound: Gateway) -> None:
    challenge = (await bound.ask(request_from(HOME), "bound"))["dbsc"]["challenge"]
    proven = request_from(HOME, dbsc=proof_of(challenge))
    bound.story.hub.clock.advance(9 * 60)
    assert await bound.decision(proven, "bound") == "ALLOW"
    await bound.settle()
    bound.story.hub.clock.advance(5 * 60)
    assert await bound.decision(request_from(HOME), "bound") == "ALLOW"
    # Whoever recorded the proof and shows it once more has no key.
    assert await bound.decision(proven, "bound") == "TERMINATE"


@ONE_ENGINE
@pytest.mark.parametrize("proof", ["", "x", "a.b.c", "é" * 100, "e30.e30.e30"])
async def test_what_is_no_proof_proves_nothing(bound: Gateway, proof: str) -> None:
    body = request_from(HOME, dbsc={"proof": proof})
    assert await bound.decision(body, "bound") == "TERMINATE"


@ONE_ENGINE
async def test_a_challenge_of_another_session_or_type_proves_nothing(bound: Gateway) -> None:
    other = {"iss": IDP, "user": f"email:{ROSA}"}
    other["binding"] = {"jwk": DEVICE_KEY.export_public(as_dict=True)}  # type: ignore[assignment]
    assert (await bound.story.admin.put("/v1/sessions/other", json=other)).is_success
    foreign = (await bound.ask(request_from(HOME), "other"))["dbsc"]["challenge"]
    body = request_from(HOME, dbsc=proof_of(foreign))
    assert await bound.decision(body, "bound") == "TERMINATE"


# --- monitor ------------------------------------------------------------------------------------


async def test_row_17_monitor_changes_nothing_and_says_what_it_would_have_done(
    gateway: Gateway,
) -> None:
    async def outcomes() -> list[tuple[str, str | None]]:
        told = []
        for body in (request_from(HOME), request_from(OFFICE), STOLEN, request_from(HOME)):
            decided = await gateway.ask(body)
            told.append((decided["decision"], decided.get("would_have")))
        return told

    preset = {"name": "standard", "mode": "monitor"}
    await gateway.story.post("/admin/v1/policies:preset", preset)
    await gateway.story.hub.node.feed.refresh()
    monitored = await outcomes()
    assert {decision for decision, _ in monitored} == {"ALLOW"}
    await gateway.settle()
    assert all(stand.state == "anchor" for stand in await stands_of(gateway))

    await gateway.story.post("/admin/v1/policies:preset", {**preset, "mode": "enforce"})
    await gateway.story.hub.node.feed.refresh()
    enforced = await outcomes()
    assert [decision for decision, _ in enforced] == [
        would_have or "ALLOW" for _, would_have in monitored
    ]
    assert [decision for decision, _ in enforced] == ["ALLOW", "STEP_UP", "TERMINATE", "ALLOW"]


async def test_row_17_a_replay_of_monitored_traffic_is_what_enforcing_then_does(
    gateway: Gateway,
) -> None:
    """Rosa travels and loses her cookie, Tim travels: watched, then replayed, then judged."""
    story = gateway.story
    minor = request_from("198.51.100.99")
    tims = [(request_from(HOME), "sid-tim"), (minor, "sid-tim"), (request_from(OFFICE), "sid-tim")]
    rosas = [(request_from(HOME), SID), (request_from(OFFICE), SID), (STOLEN, SID)]

    async def judged() -> Counter[str]:
        decisions: Counter[str] = Counter()
        for body, sid in (*rosas, *tims, *rosas[:1], *tims[:1]):
            decisions[await gateway.decision(body, sid)] += 1
        await gateway.settle()
        return decisions

    preset = {"name": "standard", "mode": "monitor"}
    await story.post("/admin/v1/policies:preset", preset)
    await story.hub.node.feed.refresh()
    assert set(await judged()) == {"ALLOW"}
    story.hub.clock.advance(1)

    rules = (await story.get("/admin/v1/policies/global-session"))["rules"]
    proposed = {"type": "global_session", "rules": rules}
    replayed = await story.post("/admin/v1/policies:replay", {"policy": proposed, "days": 1})

    await story.post("/admin/v1/policies:preset", {**preset, "mode": "enforce"})
    await story.hub.node.feed.refresh()
    enforced = await judged()
    assert (replayed["prompts"], replayed["logouts"], replayed["denials"]) == (
        enforced["STEP_UP"],
        enforced["TERMINATE"],
        enforced["DENY"],
    )
    assert (enforced["STEP_UP"], enforced["TERMINATE"]) == (2, 1)
    # Each context is recorded once, and so told once; all but the two who came back are new.
    assert replayed["contexts"] == len(rosas) + len(tims)
    assert replayed["users"] == len({sid for _, sid in (*rosas, *tims)})
    (day,) = replayed["days"]
    assert (day["prompts"], day["logouts"], day["users"]) == (2, 1, 2)


async def stands_of(gateway: Gateway) -> list[Any]:
    live = await gateway.inline.live.find("default", IDP, SID, None)
    assert live is not None
    return [each.stand for each in live.met.values()]


# --- memory -------------------------------------------------------------------------------------


@contextmanager
def counting(database: Database) -> Iterator[list[str]]:
    """Yield the statements that are sent meanwhile, but for those of the feeds."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not OF_FEEDS.search(statement):
            seen.append(statement)

    engines = {database.engine.sync_engine, database.reader.sync_engine}
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", note)
    yield seen
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", note)


async def test_a_warm_question_asks_the_database_for_nothing(gateway: Gateway) -> None:
    for body in (request_from(HOME), request_from(OFFICE)):
        await gateway.ask(body)
    await gateway.settle()
    for body in (request_from(HOME), request_from(OFFICE)):
        await gateway.ask(body)
    with counting(gateway.story.hub.database) as statements:
        assert await gateway.decision(request_from(HOME)) == "ALLOW"
        assert await gateway.decision(request_from(OFFICE)) == "STEP_UP"
        assert await gateway.decision(request_from(HOME, app_id="app_wiki")) == "ALLOW"
    assert statements == []


async def test_an_ended_session_is_ended_for_the_next_request(gateway: Gateway) -> None:
    await gateway.ask(request_from(HOME))
    ended = await gateway.story.admin.delete(f"/v1/sessions/{SID}", params={"iss": IDP})
    assert ended.status_code == 204
    await gateway.settle()
    decided = await gateway.ask(request_from(HOME))
    assert (decided["decision"], decided["reasons"]) == ("TERMINATE", ["session_ended"])


# --- strangers ----------------------------------------------------------------------------------


@ONE_ENGINE
async def test_another_tenants_session_is_unknown(gateway: Gateway) -> None:
    hub = gateway.story.hub
    await hub.add_tenant("blue")
    token = await hub.token("sessions.evaluate", tenant="blue")
    async with hub.client(token, tenant="blue") as client:
        answer = await client.post(f"/v1/sessions/{SID}/evaluate", json=request_from(HOME))
    assert (answer.json()["decision"], answer.json()["reasons"]) == ("DENY", ["session_unknown"])


@ONE_ENGINE
async def test_a_body_that_is_too_large_is_refused(gateway: Gateway) -> None:
    body = b'{"ua": "' + b"x" * (10 * 1024 * 1024) + b'"}'
    answer = await gateway.http.post(f"/v1/sessions/{SID}/evaluate", content=body)
    assert answer.status_code == 413


@ONE_ENGINE
@pytest.mark.parametrize("hop", ["", "unknown", "999.1.1.1", "10.0.0.1:443", "' OR 1=1 --", "::g"])
async def test_a_malformed_chain_is_answered(gateway: Gateway, hop: str) -> None:
    await gateway.ask(request_from(HOME))
    decided = await gateway.ask(request_from(HOME, ip_chain=[hop]))
    assert decided["decision"] == "STEP_UP"


@ONE_ENGINE
async def test_a_clock_that_is_hours_off_changes_nothing(gateway: Gateway) -> None:
    await gateway.ask(request_from(HOME))
    for moment in ("2001-01-01T00:00:00Z", "2099-01-01T00:00:00Z"):
        assert await gateway.decision(request_from(HOME, ts=moment)) == "ALLOW"
