"""Access tokens of other authorization servers: whom they let in, and all the rest."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import httpx2
import msgspec
import pytest
from jwcrypto.jwk import JWK

from hub.oauth.external import INACTIVE_FRESH_S, INTROSPECTION_FRESH_S, QUESTIONS_AT_ONCE
from receivers.keys import FAILED_FETCH_PAUSE
from runtime import ids
from ssf.jose import sign, signing_key
from tests.hub.conftest import DEFAULT, ISSUER, ONE_ENGINE, Hub

pytestmark = ONE_ENGINE

LOGIN = "https://login.customer.example"
KEYS = f"{LOGIN}/jwks.json"
ASK = f"{LOGIN}/introspect"
OTHER = "https://other.example"


def new_key(kid: str = "as-1") -> JWK:
    return JWK.generate(kty="EC", crv="P-256", kid=kid, use="sig", alg="ES256")


def jwks(key: JWK) -> dict[str, Any]:
    return {"keys": [key.export_public(as_dict=True)]}


@dataclass
class Server:
    """Somebody else's authorization server, as a tenant trusts it."""

    hub: Hub
    server_id: str
    key: JWK
    issuer: str = LOGIN

    def token(self, *, key: JWK | None = None, typ: str = "at+jwt", **changes: Any) -> str:
        """Return a good access token; a change to None leaves a claim out."""
        now_s = int(self.hub.clock.now().timestamp())
        claims = {
            "iss": self.issuer,
            "sub": "service-7",
            "client_id": "service-7",
            "aud": ISSUER,
            "scope": "ssf.read ssf.manage admin.write openid",
            "iat": now_s,
            "exp": now_s + 300,
            "jti": ids.new_ulid(),
        }
        kept = {name: value for name, value in (claims | changes).items() if value is not None}
        signer = signing_key((key or self.key).export(as_dict=True))
        return sign(msgspec.json.encode(kept), signer, typ=typ).decode()


async def trust(hub: Hub, *, tenant: str = DEFAULT, key: JWK | None = None, **how: Any) -> Server:
    """Trust a server and let its client `service-7` in, as an admin does."""
    key = key or new_key()
    body = {"name": "login", "issuer": LOGIN, **(how or {"jwks": jwks(key)})}
    async with hub.client(await hub.token(tenant=tenant), tenant=tenant) as admin:
        made = await admin.post("/admin/v1/authorization-servers", json=body)
        assert made.status_code == 201, made.text
        client = {
            "name": "service",
            "scopes": ["ssf.read", "ssf.manage"],
            "auth_method": "external",
            "authorization_server_id": made.json()["id"],
            "external_client_id": "service-7",
        }
        added = await admin.post("/admin/v1/clients", json=client)
        assert added.status_code == 201, added.text
        assert added.json()["token"] is None
    await hub.node.feed.refresh()
    return Server(hub, made.json()["id"], key, body["issuer"])


async def streams(
    hub: Hub, token: str, *, tenant: str = DEFAULT, path: str = "/ssf/streams"
) -> httpx2.Response:
    async with hub.client(token, tenant=tenant) as http:
        return await http.get(path)


async def test_a_foreign_token_lets_its_client_do_what_both_sides_allow(hub: Hub) -> None:
    server = await trust(hub, audiences=["api://hub"], jwks=jwks(key := new_key()))
    server.key = key
    async with hub.client(server.token()) as http:
        made = await http.post("/ssf/streams", json={"events_requested": []})
        assert made.status_code == 201
        assert made.json()["aud"].startswith("cli_")
        # Granted there, but not here; and the other way round.
        assert (await http.get("/admin/v1/clients")).status_code == 403
    async with hub.client(server.token(scope="ssf.read")) as http:
        assert (await http.post("/ssf/streams", json={})).status_code == 403
    for aud in ("api://hub", [OTHER, "api://hub"], f"{ISSUER}/ssf", f"{ISSUER}/ssf/streams"):
        assert (await streams(hub, server.token(aud=aud))).status_code == 200, aud
    told = await streams(hub, "x.y.z", path="/.well-known/oauth-protected-resource")
    assert told.json()["authorization_servers"] == [ISSUER, LOGIN]


@pytest.mark.requirement("SET-41", "OA-7")
async def test_what_a_server_does_not_stand_for_opens_nothing(hub: Hub) -> None:
    await hub.add_tenant("blue")
    server = await trust(hub)
    now_s = int(hub.clock.now().timestamp())
    head, body, signature = server.token().split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').rstrip(b"=").decode()
    events: dict[str, Any] = {"https://schemas.openid.net/secevent/ssf/event-type/verification": {}}
    for token in (
        server.token(key=new_key("as-1")),
        server.token(key=new_key("as-2")),
        server.token(iss=OTHER),
        server.token(iss=ISSUER),
        server.token(iss=None),
        server.token(iss=[LOGIN]),
        server.token(aud=OTHER),
        server.token(aud=None),
        server.token(aud=[]),
        server.token(aud=f"{ISSUER}/t/blue"),
        server.token(aud=f"{ISSUER}/ssf/poll/str_1"),
        server.token(client_id="service-8"),
        server.token(client_id=None),
        server.token(exp=now_s),
        server.token(exp=None),
        server.token(nbf=now_s + 5),
        server.token(scope=7),
        server.token(events=events),
        server.token(typ="JWT"),
        server.token(typ="secevent+jwt"),
        server.token(typ="logout+jwt"),
        server.token(cnf={"jkt": "a-key-we-cannot-check"}),
        server.token(cnf={"x5t#S256": "no-certificate-here"}),
        f"{none}.{body}.",
        f"{head}.{body}.{signature[:-4]}AAAA",
    ):
        answer = await streams(hub, token)
        assert answer.status_code == 401, token
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert (await streams(hub, server.token(), tenant="blue")).status_code == 401
    assert (
        await streams(hub, server.token(aud=f"{ISSUER}/t/blue"), tenant="blue")
    ).status_code == (401)
    assert (await streams(hub, server.token())).status_code == 200


async def test_two_tenants_and_two_servers_are_never_confused(hub: Hub) -> None:
    await hub.add_tenant("blue")
    mine, theirs = new_key("same-kid"), new_key("same-kid")
    here = await trust(hub, key=mine)
    there = await trust(hub, tenant="blue", key=theirs)
    blue = f"{ISSUER}/t/blue"
    # The same issuer and client name, trusted by two tenants with two keys.
    assert (await streams(hub, here.token())).status_code == 200
    assert (await streams(hub, there.token(aud=blue), tenant="blue")).status_code == 200
    for token, tenant in (
        (there.token(), DEFAULT),
        (here.token(aud=blue), "blue"),
        (there.token(aud=[ISSUER, blue]), DEFAULT),
    ):
        assert (await streams(hub, token, tenant=tenant)).status_code == 401
    # A second server of one tenant speaks for its own clients only.
    rogue = new_key("rogue")
    async with hub.client(await hub.token()) as admin:
        body = {"name": "second", "issuer": OTHER, "jwks": jwks(rogue)}
        assert (await admin.post("/admin/v1/authorization-servers", json=body)).status_code == 201
    await hub.node.feed.refresh()
    second = Server(hub, "", rogue, OTHER)
    assert (await streams(hub, second.token())).status_code == 401
    second.issuer = LOGIN
    assert (await streams(hub, second.token())).status_code == 401


async def test_a_server_that_cannot_be_reached_lets_nobody_in_and_condemns_no_token(
    hub: Hub,
) -> None:
    key = new_key()
    hub.outside.answer(KEYS, 500)
    server = await trust(hub, key=key, jwks_uri=KEYS)
    for _ in range(20):
        answer = await streams(hub, server.token())
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
    assert len(hub.outside.requests) == 1
    # What needs no caller is served, and a wrong method is a wrong method.
    assert (await streams(hub, server.token(), path="/healthz")).status_code == 200
    assert (await streams(hub, server.token(), path="/ssf/verify")).status_code == 405
    hub.outside.answer(KEYS, 200, jwks(key))
    hub.clock.advance(FAILED_FETCH_PAUSE.total_seconds())
    assert (await streams(hub, server.token())).status_code == 200


async def test_a_server_that_is_trusted_no_more_opens_nothing(hub: Hub) -> None:
    server = await trust(hub)
    token = server.token()
    assert (await streams(hub, token)).status_code == 200
    renewed = new_key("as-2")
    async with hub.client(await hub.token()) as admin:
        path = f"/admin/v1/authorization-servers/{server.server_id}"
        assert (await admin.patch(path, json={"jwks": jwks(renewed)})).status_code == 200
        await hub.node.feed.refresh()
        assert (await streams(hub, token)).status_code == 401
        assert (await streams(hub, server.token(key=renewed))).status_code == 200
        assert (await admin.delete(path)).status_code == 204
        await hub.node.feed.refresh()
        assert (await streams(hub, server.token(key=renewed))).status_code == 401
        actions = [entry.action for entry in await hub.audit()]
    assert actions[-2:] == ["authorization_server.change", "authorization_server.delete"]


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": ISSUER},
        {"issuer": "http://login.customer.example"},
        {"issuer": "nonsense"},
        {"jwks_uri": None},
        {"jwks_uri": "http://login.customer.example/jwks.json"},
        {"jwks_uri": "https://user:pw@login.customer.example/"},
        {"jwks": {"keys": []}},
        {"introspection_url": ASK},
        {"jwks_uri": None, "introspection_url": ASK},
        {"jwks_uri": None, "introspection_url": ASK, "introspection_client_id": "hub"},
        {"introspection_secret": "s"},
        {"audiences": ["x"] * 21},
        {"surprise": 1},
    ],
)
async def test_settings_that_make_no_sense_are_refused(hub: Hub, change: dict[str, Any]) -> None:
    body = {"name": "x", "issuer": LOGIN, "jwks_uri": KEYS, **change}
    async with hub.client(await hub.token()) as admin:
        answer = await admin.post("/admin/v1/authorization-servers", json=body)
    assert answer.status_code == 400, answer.text


async def test_an_external_client_names_a_server_of_its_tenant(hub: Hub) -> None:
    await hub.add_tenant("blue")
    there = await trust(hub, tenant="blue")
    body = {"name": "x", "scopes": ["ssf.read"], "auth_method": "external"}
    how = {"authorization_server_id": there.server_id, "external_client_id": "service-7"}
    async with hub.client(await hub.token()) as admin:
        for wrong in (body, {**body, **how}, {**body, "external_client_id": "x"}):
            assert (await admin.post("/admin/v1/clients", json=wrong)).status_code == 400
    async with hub.client(await hub.token(tenant="blue"), tenant="blue") as admin:
        twice = await admin.post("/admin/v1/clients", json={**body, **how})
        assert twice.status_code == 409


# --- introspection ------------------------------------------------------------------------------


INTROSPECTION: Mapping[str, Any] = {
    "introspection_url": ASK,
    "introspection_client_id": "hub:1",
    "introspection_secret": "s3cret&more",
}


def active(**changes: Any) -> dict[str, Any]:
    said = {
        "active": True,
        "client_id": "service-7",
        "aud": ISSUER,
        "scope": "ssf.read",
        "iss": LOGIN,
        "token_type": "Bearer",
    }
    return {name: value for name, value in (said | changes).items() if value is not None}


async def test_an_opaque_token_is_asked_about_and_the_answer_believed_for_a_while(
    hub: Hub,
) -> None:
    await trust(hub, **INTROSPECTION)
    hub.outside.answer(ASK, 200, active())
    for _ in range(5):
        assert (await streams(hub, "opaque-1")).status_code == 200
    (asked,) = hub.outside.requests
    assert parse_qs(asked.body.decode()) == {
        "token": ["opaque-1"],
        "token_type_hint": ["access_token"],
    }
    pair = base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")).decode()
    assert pair == "hub%3A1:s3cret%26more"
    hub.outside.answer(ASK, 200, {"active": False})
    assert (await streams(hub, "opaque-1")).status_code == 200
    hub.clock.advance(INTROSPECTION_FRESH_S)
    assert (await streams(hub, "opaque-1")).status_code == 401
    hub.outside.answer(ASK, 200, active())
    assert (await streams(hub, "opaque-1")).status_code == 401
    hub.clock.advance(INACTIVE_FRESH_S)
    assert (await streams(hub, "opaque-1")).status_code == 200


async def test_an_answer_counts_only_if_all_of_it_fits(hub: Hub) -> None:
    await trust(hub, **INTROSPECTION)
    now_s = int(hub.clock.now().timestamp())
    for number, said in enumerate(
        (
            {"active": False},
            active(active=False),
            active(client_id="service-8"),
            active(client_id=None),
            active(aud=None),
            active(aud=OTHER),
            active(aud=[]),
            active(iss=OTHER),
            active(exp=now_s),
            active(nbf=now_s + 5),
            active(token_type="DPoP"),
            active(cnf={"jkt": "x"}),
        )
    ):
        hub.outside.answer(ASK, 200, said)
        assert (await streams(hub, f"opaque-{number}")).status_code == 401, said
    unusable: tuple[tuple[int, Any], ...] = (
        (200, {"active": "true"}),
        (200, ["active"]),
        (200, {}),
        (401, {"active": True}),
        (500, None),
        (302, active()),
    )
    for number, (status, answered) in enumerate(unusable):
        hub.outside.answer(ASK, status, answered)
        answer = await streams(hub, f"unusable-{number}")
        assert answer.status_code == 503, answered
        assert "retry-after" in answer.headers
    hub.outside.answer(ASK, 200, active(exp=now_s + 10, token_type=None))
    assert (await streams(hub, "short")).status_code == 200
    hub.clock.advance(10)
    assert (await streams(hub, "short")).status_code == 401


async def test_tokens_of_ours_and_of_third_parties_are_shown_to_nobody(hub: Hub) -> None:
    await trust(hub, **INTROSPECTION)
    hub.outside.answer(ASK, 200, active())
    third = Server(hub, "", new_key(), OTHER)
    own = Server(hub, "", new_key(), ISSUER)
    for token in ("shc_mistyped", third.token(), own.token(), "a.b.c", "x" * 5_000):
        assert (await streams(hub, token)).status_code == 401, token
    assert (await streams(hub, await hub.token("ssf.read"))).status_code == 200
    assert hub.outside.requests == []
    of_its_own = Server(hub, "", new_key())
    assert (await streams(hub, of_its_own.token())).status_code == 200
    assert len(hub.outside.requests) == 1


async def test_a_flood_of_unknown_tokens_is_bounded_and_known_ones_stay_known(hub: Hub) -> None:
    await trust(hub, **INTROSPECTION)
    hub.outside.answer(ASK, 200, active())
    assert (await streams(hub, "known")).status_code == 200
    hub.outside.answer(ASK, 200, {"active": False})
    answers = [
        (await streams(hub, f"guess-{number}")).status_code
        for number in range(int(QUESTIONS_AT_ONCE) + 20)
    ]
    assert answers[-1] == 503
    assert answers.count(401) == QUESTIONS_AT_ONCE - 1
    assert len(hub.outside.requests) == QUESTIONS_AT_ONCE
    hub.outside.answer(ASK, 200, active())
    assert (await streams(hub, "known")).status_code == 200


async def test_a_tenant_asks_one_server_and_its_secret_is_nowhere_to_be_read(hub: Hub) -> None:
    await trust(hub, **INTROSPECTION)
    async with hub.client(await hub.token()) as admin:
        again = {**INTROSPECTION, "name": "second", "issuer": OTHER}
        refused = await admin.post("/admin/v1/authorization-servers", json=again)
        assert (refused.status_code, "asked already" in refused.text) == (400, True)
        shown = (await admin.get("/admin/v1/authorization-servers")).text
        audit = (await admin.get("/admin/v1/audit?limit=100")).text
    assert "has_introspection_secret" in shown
    assert "s3cret" not in shown + audit
