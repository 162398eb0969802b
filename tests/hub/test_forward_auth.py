"""Gateways at the door: cookie or header in, status out, in each gateway's dialect."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import sqlalchemy as sa

from actions.fronting import ForwardAuthSetting, faults_of
from hub.doors.forward_auth_model import (
    Dialect,
    Wanted,
    expired_cookie,
    keep_out,
    parse_original,
    return_address,
    session_cookies,
    step_up_challenge,
    verdict_headers,
    with_parameters,
)
from hub.inline.model import CHAIN_HOPS_MAX, TEXT_CHARACTERS_MAX, Answer
from risk.verdict import Decision, Scope, Verdict
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import IDP, Story, begin

PATH = "/v1/forward-auth"
COOKIE = "s3cr3t-cookie-of-rosa-0001"
GUARD = {
    "cookies": ["crm_session", "__Host-crm"],
    "origins": ["https://crm.example"],
    "sign_in_url": "https://login.customer.example/sign-in?client=crm",
    "tells_user": True,
}
PAGE = {
    "accept": "text/html,*/*",
    "x-forwarded-method": "GET",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "crm.example",
    "x-forwarded-uri": "/accounts?id=7",
    "x-forwarded-for": "198.51.100.24",
}


@dataclass
class Edge:
    """A gateway in front of the app of a story."""

    story: Story
    client: httpx2.AsyncClient
    app_id: str

    async def ask(
        self,
        cookie: str | None = COOKIE,
        *,
        dialect: str = "traefik",
        name: str = "crm_session",
        **headers: str,
    ) -> httpx2.Response:
        said = {**PAGE, **{key.replace("_", "-"): value for key, value in headers.items()}}
        if cookie is not None:
            said["cookie"] = f"theme=dark; {name}={cookie}"
        query = {"dialect": dialect, "app": self.app_id}
        return await self.client.get(PATH, params=query, headers=said)

    async def ask_with(self, cookies: str) -> httpx2.Response:
        query = {"dialect": "traefik", "app": self.app_id}
        return await self.client.get(PATH, params=query, headers={**PAGE, "cookie": cookies})

    async def guard(self, **changes: Any) -> None:
        await self.change(self.app_id, {**GUARD, **changes})

    async def change(self, app_id: str, setting: dict[str, Any]) -> None:
        answer = await self.story.admin.patch(
            f"/admin/v1/apps/{app_id}", json={"forward_auth": setting}
        )
        assert answer.status_code == 200, answer.text
        await self.story.hub.node.feed.refresh()

    async def sign_in(self, sid: str = "sid-cookie", cookie: str = COOKIE, **more: Any) -> None:
        digest = hashlib.sha256(cookie.encode()).hexdigest()
        body = {"user": self.story.ids["rosa"], "cookie_sha256": digest, **more}
        async with self.story.hub.client(self.story.tokens["idp"]) as idp:
            answer = await idp.put(f"/v1/sessions/{sid}", json=body)
            assert answer.is_success, answer.text

    async def step_up(self, step_up_id: str, sid: str = "sid-cookie", **proof: str) -> None:
        body = {"outcome": "passed", **proof}
        async with self.story.hub.client(self.story.tokens["idp"]) as idp:
            answer = await idp.post(f"/v1/sessions/{sid}/step-ups/{step_up_id}", json=body)
            assert answer.is_success, answer.text

    async def sign_out(self, sid: str = "sid-cookie") -> None:
        async with self.story.hub.client(self.story.tokens["idp"]) as idp:
            assert (await idp.delete(f"/v1/sessions/{sid}")).is_success


@pytest.fixture
async def edge(hub: Hub) -> AsyncIterator[Edge]:
    story = await begin(hub)
    made = await story.post("/admin/v1/apps", {"name": "edge", "kind": "gateway"})
    story.ids["edge"] = made["id"]
    token = await hub.token("sessions.evaluate", app_id=made["id"])
    async with hub.client(token) as client:
        edge = Edge(story, client, story.ids["crm"])
        await edge.guard()
        await edge.sign_in()
        yield edge
    await story.admin.aclose()


# --- verdicts -----------------------------------------------------------------------------------


@pytest.mark.requirement("FWA-20", "FWA-22", "FWA-30", "FWA-40")
async def test_a_known_cookie_passes_and_the_app_learns_whose_it_is(edge: Edge) -> None:
    answer = await edge.ask()
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-signalhub-decision"] == "ALLOW"
    assert answer.headers["x-signalhub-mode"] == "enforce"
    assert answer.headers["x-signalhub-user"] == edge.story.ids["rosa"]
    assert answer.headers["x-signalhub-session-id"].startswith("ses_")
    assert answer.headers["x-signalhub-cache-ttl-ms"].isdigit()
    assert answer.headers["cache-control"] == "no-store"
    await edge.guard(tells_user=False)
    assert "x-signalhub-user" not in (await edge.ask()).headers


@ONE_ENGINE
@pytest.mark.requirement("FWA-32", "FWA-40")
async def test_a_contained_user_is_kept_out(edge: Edge) -> None:
    await edge.story.play()
    await edge.story.hub.node.changes.refresh()
    for dialect in Dialect:
        answer = await edge.ask(dialect=dialect)
        assert answer.status_code in {401, 403, 302}
        assert "quarantined" in answer.headers["x-signalhub-reasons"]
        assert answer.headers["x-signalhub-trace-id"] == "txn-1"
        assert "x-signalhub-user" not in answer.headers


@ONE_ENGINE
@pytest.mark.requirement("FWA-3", "FWA-33", "FWA-41")
async def test_an_ended_session_is_sent_away_without_its_cookie(edge: Edge) -> None:
    await edge.sign_out()
    answer = await edge.ask()
    assert answer.status_code == 302
    assert answer.headers["x-signalhub-decision"] == "TERMINATE"
    where = urlsplit(answer.headers["location"])
    assert where.netloc == "login.customer.example"
    assert parse_qs(where.query) == {
        "client": ["crm"],
        "return_to": ["https://crm.example/accounts?id=7"],
    }
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("crm_session=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970")
    assert "Secure" in cookie

    nginx = await edge.ask(dialect="nginx")
    assert nginx.status_code == 401
    assert nginx.headers["x-signalhub-location"] == answer.headers["location"]
    assert nginx.headers["set-cookie"] == cookie
    program = await edge.ask(accept="application/json")
    assert program.status_code == 401
    assert program.headers["www-authenticate"].startswith("Bearer ")
    await edge.guard(sign_out_url="https://crm.example/bye", clears_cookie=False)
    answer = await edge.ask()
    assert answer.headers["location"].startswith("https://crm.example/bye?return_to=")
    assert "set-cookie" not in answer.headers


@ONE_ENGINE
@pytest.mark.requirement("FWA-34")
async def test_nobody_is_sent_to_sign_in_or_let_through_during_roll_out(edge: Edge) -> None:
    for cookie in (None, "another-cookie-of-nobody", "short"):
        answer = await edge.ask(cookie)
        assert answer.status_code == 302
        assert answer.headers["x-signalhub-decision"] == "NO_SESSION"
        assert (await edge.ask(cookie, dialect="nginx")).status_code == 401
        post = await edge.ask(cookie, x_forwarded_method="POST")
        assert (post.status_code, "location" in post.headers) == (401, False)
    await edge.guard(sign_in_url=None)
    assert (await edge.ask(None)).status_code == 401
    await edge.change(edge.story.ids["idp"], {"sign_in_url": f"{IDP}/login"})
    location = (await edge.ask(None)).headers["location"]
    assert location.startswith(f"{IDP}/login?return_to=")
    await edge.guard(unknown_session="allow")
    assert (await edge.ask(None)).status_code == 200


@ONE_ENGINE
@pytest.mark.requirement("FWA-22", "FWA-25")
async def test_every_cookie_of_a_name_is_tried_and_none_is_decoded(edge: Edge) -> None:
    for header in (
        f"crm_session=an-older-cookie-of-nobody; crm_session={COOKIE}",
        f'a=b; crm_session="{COOKIE}"',
        f"__Host-crm={COOKIE}",
        "crm_session=" + ";crm_session=".join(["x" * 20] * 500 + [COOKIE]),
    ):
        assert (await edge.ask_with(header)).status_code == 200, header
    for header in (
        f"other={COOKIE}",
        f"crm_session=%73{COOKIE[1:]}",
        f"CRM_SESSION={COOKIE}",
        "; ".join("crm_session=" + str(n) * 20 for n in range(9)) + f"; crm_session={COOKIE}",
        "=;=;;;crm_session",
    ):
        answer = await edge.ask_with(header)
        assert answer.headers["x-signalhub-decision"] == "NO_SESSION", header[:60]


# --- attacks ------------------------------------------------------------------------------------


@ONE_ENGINE
@pytest.mark.requirement("FWA-21", "EGW-72")
async def test_a_gateway_without_good_credentials_is_never_told_401(edge: Edge) -> None:
    hub, app = edge.story.hub, edge.app_id
    query = f"{PATH}?dialect=nginx&app={app}"
    good = edge.client.headers["authorization"]
    wrong_scope = await hub.token("risk.read")
    other_app = await hub.token("sessions.evaluate", app_id=edge.story.ids["wiki"])
    cookie = {"cookie": f"crm_session={COOKIE}"}
    async with hub.client() as nobody:
        for headers, status in (
            ({}, 403),
            ({"authorization": "Bearer wrong"}, 403),
            ({"authorization": "Basic eDp5"}, 403),
            ({"authorization": f"Bearer {wrong_scope}"}, 403),
            ({"authorization": f"Bearer {other_app}"}, 403),
            ({"authorization": good}, 200),
            ({"authorization": "Bearer of-the-end-user", "x-signalhub-authorization": good}, 200),
            ({"authorization": good, "x-signalhub-authorization": "Bearer wrong"}, 403),
        ):
            answer = await nobody.get(query, headers={**PAGE, **cookie, **headers})
            assert answer.status_code == status, headers
            assert ("www-authenticate" in answer.headers) is False
            if status == 403:
                assert answer.headers["x-signalhub-decision"] == "ERROR"


@ONE_ENGINE
@pytest.mark.requirement("FWA-20", "EGW-70")
async def test_a_gateway_that_asks_wrongly_gets_403(edge: Edge) -> None:
    for query in (
        "",
        "?dialect=nginx",
        f"?app={edge.app_id}",
        f"?dialect=apache&app={edge.app_id}",
        "?dialect=nginx&app=app_unknown",
        f"?dialect=nginx&app={edge.app_id}&x=%00",
    ):
        answer = await edge.client.get(PATH + query, headers=PAGE)
        assert answer.status_code == 403, query
        assert answer.headers["x-signalhub-decision"] == "ERROR"


@ONE_ENGINE
@pytest.mark.requirement("FWA-6", "FWA-20", "FWA-24", "EGW-71")
async def test_envoy_asks_below_the_path_with_any_method(edge: Edge) -> None:
    said = {
        "x-signalhub-dialect": "envoy",
        "x-signalhub-app": edge.app_id,
        "x-forwarded-proto": "https",
        "host": "crm.example",
        "accept": "text/html",
        "cookie": f"crm_session={COOKIE}",
    }
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"):
        for uri in ("/", "/accounts?id=7", "/a?access_token=users-own", "/..%2f?x=y", "//x"):
            answer = await edge.client.request(method, PATH + uri, headers=said)
            assert answer.status_code == 200, f"{method} {uri}"
    # The query belongs to the end user here: it chooses neither the app nor the dialect.
    other = edge.story.ids["wiki"]
    nobody = {**said, "cookie": "crm_session=nobody-with-a-cookie"}
    answer = await edge.client.get(f"{PATH}/x?app={other}&dialect=nginx", headers=nobody)
    assert answer.status_code == 302
    where = parse_qs(urlsplit(answer.headers["location"]).query)
    assert where["return_to"] == [f"https://crm.example/x?app={other}&dialect=nginx"]
    answer = await edge.client.get(f"{PATH}/x?app={edge.app_id}&dialect=envoy", headers=PAGE)
    assert answer.headers["x-signalhub-decision"] == "ERROR"


async def order(edge: Edge, then: dict[str, Any]) -> None:
    """Put a policy on the app that says one thing to everybody, in place of the one before."""
    rule = {"name": "everybody", "priority": 1, "when": {}, "then": then}
    policy = {"type": "app_sign_in", "name": "all", "apps": [edge.app_id], "mode": "enforce"}
    await edge.story.post("/admin/v1/policies:apply", {**policy, "rules": [rule]})
    await edge.story.hub.node.feed.refresh()


@ONE_ENGINE
@pytest.mark.requirement("FWA-6", "FWA-31", "FWA-33", "EGW-71")
async def test_row_19_envoys_contract_redirects_for_a_step_up_and_takes_the_cookie_at_the_end(
    edge: Edge,
) -> None:
    await edge.guard(step_up_url=f"{IDP}/step-up?client=crm")
    said = {
        "x-signalhub-dialect": "envoy",
        "x-signalhub-app": edge.app_id,
        "x-forwarded-proto": "https",
        "host": "crm.example",
        "cookie": f"crm_session={COOKIE}",
    }
    page = {**said, "accept": "text/html"}
    path = f"{PATH}/accounts?id=7"

    await order(edge, {"decision": "STEP_UP", "acr": "phr", "max_age": 0})
    asked = await edge.client.get(path, headers=page)
    assert (asked.status_code, asked.headers["x-signalhub-decision"]) == (302, "STEP_UP")
    assert "set-cookie" not in asked.headers
    where = urlsplit(asked.headers["location"])
    assert f"{where.scheme}://{where.netloc}{where.path}" == f"{IDP}/step-up"
    wanted = parse_qs(where.query)
    (step_up_id,) = wanted.pop("step_up")
    assert wanted == {
        "client": ["crm"],
        "acr_values": ["phr"],
        "max_age": ["0"],
        "return_to": ["https://crm.example/accounts?id=7"],
    }
    program = await edge.client.post(path, headers=said)
    assert (program.status_code, "location" in program.headers) == (401, False)
    challenge = program.headers["www-authenticate"]
    assert 'error="insufficient_user_authentication"' in challenge
    assert 'acr_values="phr", max_age="0"' in challenge
    await edge.step_up(step_up_id, acr="phr")
    await edge.story.hub.node.changes.refresh()
    assert (await edge.client.get(path, headers=page)).status_code == 200

    await order(edge, {"decision": "TERMINATE"})
    ended = await edge.client.get(path, headers=said)
    assert (ended.status_code, ended.headers["x-signalhub-decision"]) == (401, "TERMINATE")
    assert "Max-Age=0" in ended.headers["set-cookie"]
    browser = await edge.client.get(path, headers=page)
    assert browser.status_code == 302
    assert browser.headers["location"].startswith(str(GUARD["sign_in_url"]))
    assert browser.headers["set-cookie"] == ended.headers["set-cookie"]
    assert browser.headers["set-cookie"].startswith("crm_session=; Path=/; Max-Age=0; ")


APISIX = {
    "x-forwarded-proto": "https",
    "x-forwarded-method": "GET",
    "x-forwarded-host": "crm.example",
    "x-forwarded-uri": "/accounts?id=7",
    "x-forwarded-for": "198.51.100.24",
}
INGRESS_NGINX = {
    "x-original-url": "https://crm.example/accounts?id=7",
    "x-original-method": "GET",
    "x-auth-request-redirect": "/accounts?id=7",
    "x-sent-from": "nginx-ingress-controller",
    "x-real-ip": "198.51.100.24",
    "x-forwarded-for": "198.51.100.24",
}
#: of the Kubernetes Gateway API, `ExternalAuth` over HTTP: what Envoy says
GATEWAY_API = {"host": "crm.example", "x-forwarded-proto": "https"}


@ONE_ENGINE
@pytest.mark.requirement("FWA-7")
@pytest.mark.parametrize(
    ("dialect", "headers", "tail", "status"),
    [
        ("traefik", APISIX, "", 302),
        ("nginx", INGRESS_NGINX, "", 401),
        ("envoy", GATEWAY_API, "/accounts?id=7", 302),
    ],
)
async def test_gateways_of_other_names_ask_in_one_of_the_same_shapes(
    edge: Edge, dialect: str, headers: dict[str, str], tail: str, status: int
) -> None:
    said = {**headers, "accept": "text/html"}
    if dialect == "envoy":
        said |= {"x-signalhub-dialect": "envoy", "x-signalhub-app": edge.app_id}
        path = PATH + tail
    else:
        path = f"{PATH}?dialect={dialect}&app={edge.app_id}"
    known = await edge.client.get(path, headers={**said, "cookie": f"crm_session={COOKIE}"})
    assert (known.status_code, known.headers["x-signalhub-decision"]) == (200, "ALLOW")
    nobody = await edge.client.get(path, headers=said)
    assert nobody.status_code == status
    where = nobody.headers["x-signalhub-location" if status == 401 else "location"]
    back = parse_qs(urlsplit(where).query)["return_to"]
    assert back == ["https://crm.example/accounts?id=7"]


@ONE_ENGINE
@pytest.mark.requirement("FWA-22", "EGW-73")
async def test_a_session_in_a_header_is_believed_of_trusted_gateways_only(edge: Edge) -> None:
    assert (await edge.ask(None, x_signalhub_session="sid-rosa")).status_code == 302
    await edge.change(edge.story.ids["edge"], {"session_header": "trusted"})
    assert (await edge.ask(None, x_signalhub_session="sid-rosa")).status_code == 200
    for sid in ("nobody's", "x" * 600, "a\tb"):
        answer = await edge.ask(None, x_signalhub_session=sid)
        assert answer.headers["x-signalhub-decision"] == "NO_SESSION"


@ONE_ENGINE
@pytest.mark.requirement("FWA-41")
@pytest.mark.parametrize(
    "said",
    [
        {"x_forwarded_host": "evil.example"},
        {"x_forwarded_host": "crm.example.evil.example"},
        {"x_forwarded_host": "crm.example@evil.example"},
        {"x_forwarded_host": "crm.example:8443"},
        {"x_forwarded_proto": "http"},
        {"x_forwarded_proto": "javascript"},
        {"x_forwarded_host": ""},
    ],
)
async def test_the_way_back_leads_to_the_apps_own_origins_only(
    edge: Edge, said: dict[str, str]
) -> None:
    location = (await edge.ask(None, **said)).headers["location"]
    assert location == GUARD["sign_in_url"]


@ONE_ENGINE
async def test_another_tenants_cookie_is_nobodys(edge: Edge, hub: Hub) -> None:
    await hub.add_tenant("green")
    async with hub.client(await hub.token(tenant="green"), tenant="green") as admin:
        app = {"name": "crm", "forward_auth": GUARD}
        app_id = (await admin.post("/admin/v1/apps", json=app)).json()["id"]
        await hub.node.feed.refresh()
        headers = {**PAGE, "cookie": f"crm_session={COOKIE}"}
        params = {"dialect": "nginx", "app": app_id}
        answer = await admin.get(PATH, params=params, headers=headers)
        assert answer.headers["x-signalhub-decision"] == "NO_SESSION"
        params = {"dialect": "nginx", "app": edge.app_id}
        answer = await admin.get(PATH, params=params, headers=headers)
        assert answer.headers["x-signalhub-decision"] == "ERROR"


@ONE_ENGINE
@pytest.mark.requirement("FWA-35")
async def test_when_the_hub_cannot_decide_the_apps_own_rule_does(edge: Edge) -> None:
    assert (await edge.ask()).status_code == 200
    async with edge.story.hub.database.transaction() as connection:
        await connection.execute(sa.text("ALTER TABLE sessions RENAME TO lost"))
    for fallback, dialect, status in (
        ("deny", "nginx", 403),
        ("deny", "envoy", 403),
        ("allow", "nginx", 200),
        ("error", "nginx", 403),
        ("error", "envoy", 503),
    ):
        await edge.guard(fallback=fallback)
        answer = await edge.ask("a-cookie-that-was-never-seen", dialect=dialect)
        assert answer.status_code == status, f"{fallback} {dialect}"
        assert answer.headers["x-signalhub-decision"] == "FALLBACK"
        assert "x-signalhub-user" not in answer.headers


@ONE_ENGINE
async def test_a_setting_that_would_break_headers_is_refused(edge: Edge) -> None:
    for wrong, pointer in (
        ({"cookies": ["a b"]}, "/forward_auth/cookies"),
        ({"cookies": ["a;b"]}, "/forward_auth/cookies"),
        ({"cookies": ["a\r\nSet-Cookie: x=y"]}, "/forward_auth/cookies"),
        ({"cookies": ["c"] * 9}, "/forward_auth/cookies"),
        ({"origins": ["crm.example"]}, "/forward_auth/origins"),
        ({"origins": ["https://crm.example/"]}, "/forward_auth/origins"),
        ({"origins": ["https://u@crm.example"]}, "/forward_auth/origins"),
        ({"step_up_url": "javascript:alert(1)"}, "/forward_auth/step_up_url"),
        ({"sign_in_url": "https://x/\r\nA: b"}, "/forward_auth/sign_in_url"),
        ({"sign_out_url": "//evil.example"}, "/forward_auth/sign_out_url"),
        ({"return_parameter": "a&b"}, "/forward_auth/return_parameter"),
        ({"cookie_domain": "a;b"}, "/forward_auth/cookie_domain"),
    ):
        answer = await edge.story.admin.patch(
            f"/admin/v1/apps/{edge.app_id}", json={"forward_auth": wrong}
        )
        assert answer.status_code == 400, wrong
        assert pointer in answer.text
    read = await edge.story.get(f"/admin/v1/apps/{edge.app_id}")
    assert read["forward_auth"]["cookies"] == GUARD["cookies"]


# --- rules without a hub ------------------------------------------------------------------------


STEP_UP = Answer(
    verdict=Verdict(
        decision=Decision.STEP_UP,
        scope=Scope.SESSION,
        reasons=("asn_changed", "app_policy:Löhne, streng\r\n"),
        acr='phr "mfa"\r\n urn:mfa',
        max_age=0,
        would_have=Decision.DENY,
    ),
    session_id="ses_1",
)


def original(**said: str) -> Any:
    headers = {**PAGE, **{key.replace("_", "-"): value for key, value in said.items()}}
    raw = [(key.encode(), value.encode("latin-1")) for key, value in headers.items()]
    return parse_original(raw, dialect=Dialect.CADDY, method="GET", tail="/")


@pytest.mark.requirement("STEP-1", "STEP-2", "STEP-10", "EGW-69", "FWA-31")
def test_a_step_up_is_the_challenge_of_rfc_9470() -> None:
    challenge = step_up_challenge(STEP_UP)
    assert challenge.startswith('Bearer error="insufficient_user_authentication", ')
    assert 'acr_values="phr urn:mfa"' in challenge
    assert 'max_age="0"' in challenge
    assert "\r" not in challenge
    wanted = Wanted(location="https://idp.example/up", challenge=challenge)
    for dialect in Dialect:
        reply = keep_out(dialect, original(), wanted)
        assert reply.status == (401 if dialect is Dialect.NGINX else 302)
        post = keep_out(dialect, original(x_forwarded_method="POST"), wanted)
        assert (post.status, dict(post.headers)["www-authenticate"]) == (401, challenge)


@pytest.mark.requirement("FWA-40", "FWA-41", "STEP-7")
def test_headers_carry_codes_and_nothing_that_ends_them() -> None:
    headers = dict(verdict_headers(STEP_UP))
    assert headers["x-signalhub-decision"] == "STEP_UP"
    assert headers["x-signalhub-would-have"] == "DENY"
    assert headers["x-signalhub-reasons"] == "asn_changed,app_policy:L_hne__streng__"


@pytest.mark.requirement("FWA-24")
def test_the_original_request_is_read_from_any_gateways_headers() -> None:
    assert original().path == "/accounts"
    ingress = original(x_forwarded_uri="https://crm.example/a/b?c=d")
    assert (ingress.origin, ingress.uri, ingress.path) == (
        "https://crm.example",
        "/a/b?c=d",
        "/a/b",
    )
    assert original(x_forwarded_uri="evil").uri == "/"
    assert original(x_forwarded_uri="http://[").uri == "/"


def test_a_chain_is_read_from_its_end_and_within_bounds() -> None:
    assert original(x_forwarded_for="a, b,,c").chain == ("a", "b", "c")
    assert original(x_forwarded_for=", ,").chain == ()
    long = original(x_forwarded_for=",".join(["1.1.1.1"] * 5_000) + ", 2.2.2.2").chain
    assert (len(long), long[-1]) == (CHAIN_HOPS_MAX, "2.2.2.2")
    assert max(map(len, original(x_forwarded_for="x" * 60_000).chain)) == TEXT_CHARACTERS_MAX
    hops = original(x_forwarded_for=", ".join(f"10.0.{n // 250}.{n % 250}" for n in range(1_000)))
    assert len(hops.chain) == 64
    assert hops.chain[-1] == "10.0.3.249"


@pytest.mark.requirement("FWA-41")
def test_the_way_back_keeps_the_address_and_cannot_break_out() -> None:
    setting = ForwardAuthSetting(origins=("https://crm.example",))
    for uri, expected in (
        ("/a?b=c", "https://crm.example/a?b=c"),
        ("//evil.example/x", "https://crm.example//evil.example/x"),
        ("/\\evil.example", "https://crm.example/%5Cevil.example"),
        ('/"><script>', "https://crm.example/%22%3E%3Cscript%3E"),
        ("/a\x0d\x0ab", None),
        ("/" + "x" * 3_000, None),
    ):
        assert return_address(original(x_forwarded_uri=uri), setting) == expected
    url = with_parameters("https://idp.example/up?a=b", {"max_age": "0", "back": "https://c/?d&e"})
    assert url == "https://idp.example/up?a=b&max_age=0&back=https%3A%2F%2Fc%2F%3Fd%26e"


@pytest.mark.requirement("FWA-25")
def test_short_cookies_name_no_session() -> None:
    short = original(cookie="sid=123456789012345; other=1234567890123456")
    assert session_cookies(short, ["sid", "other"]) == [
        ("other", hashlib.sha256(b"1234567890123456").hexdigest())
    ]


@pytest.mark.requirement("FWA-33")
def test_a_cookie_is_expired_where_it_lives() -> None:
    setting = ForwardAuthSetting(cookie_domain="crm.example")
    assert "Domain=crm.example" in expired_cookie("sid", setting, is_https=False)
    assert "Secure" not in expired_cookie("sid", setting, is_https=False)
    host = expired_cookie("__Host-sid", setting, is_https=False)
    assert "Domain" not in host
    assert "Secure" in host


def test_defaults_are_acceptable() -> None:
    assert list(faults_of(ForwardAuthSetting())) == []
