"""Clients that prove themselves with a key: what is taken once, and all that is not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any

import httpx2
import msgspec
import pytest
from jwcrypto.jwk import JWK

from hub.app import make_app
from hub.core import LEADER_BUCKET, LEASE_KIND
from hub.oauth.assertions import ASSERTION_TYPE, LIFETIME_MAX_S
from hub.oauth.proving import FAILURES_AT_ONCE, TOKENS_AT_ONCE
from hub.oauth.store import client_assertions
from receivers.keys import REFETCH_COOLDOWN
from runtime import ids
from runtime.queue import LeaseKeeper
from ssf.jose import sign, signing_key
from tests.hub.conftest import DEFAULT, ISSUER, ONE_ENGINE, Hub

TOKEN = f"{ISSUER}/oauth/token"
KEYS_URL = "https://app.example/jwks.json"


def new_key(kid: str = "k-1", alg: str = "RS256") -> JWK:
    """Make a key of a client."""
    if alg == "RS256":
        return JWK.generate(kty="RSA", size=2048, kid=kid, use="sig", alg=alg)
    return JWK.generate(kty="EC", crv="P-256", kid=kid, use="sig", alg=alg)


def jwks(*keys: JWK) -> dict[str, Any]:
    return {"keys": [key.export_public(as_dict=True) for key in keys]}


@dataclass
class Signer:
    """A client with a key."""

    hub: Hub
    key: JWK
    client_id: str
    tenant: str = DEFAULT
    changes: dict[str, Any] = field(default_factory=dict)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good assertion; a change to None leaves one out."""
        now_s = int(self.hub.clock.now().timestamp())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": ISSUER,
            "iat": now_s,
            "exp": now_s + 60,
            "jti": ids.new_ulid(),
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def assertion(self, *, key: JWK | None = None, typ: str = "JWT", **changes: Any) -> str:
        signer = signing_key((key or self.key).export(as_dict=True))
        return sign(msgspec.json.encode(self.claims(**changes)), signer, typ=typ).decode()

    async def ask(
        self, assertion: str, http: httpx2.AsyncClient | None = None, **form: str
    ) -> httpx2.Response:
        body = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
            **form,
        }
        if http is not None:
            return await http.post("/oauth/token", data=body)
        async with self.hub.client(tenant=self.tenant) as own:
            return await own.post("/oauth/token", data=body)


async def signer(hub: Hub, key: JWK, *, tenant: str = DEFAULT, **how: Any) -> Signer:
    """Make a client that proves itself with a key, as an admin does."""
    async with hub.client(await hub.token(tenant=tenant), tenant=tenant) as admin:
        body = {
            "name": f"signer {ids.new_ulid()}",
            "scopes": ["ssf.read"],
            "auth_method": "private_key_jwt",
            **(how or {"jwks": jwks(key)}),
        }
        made = await admin.post("/admin/v1/clients", json=body)
        assert made.status_code == 201, made.text
        assert made.json()["token"] is None
    await hub.node.feed.refresh()
    return Signer(hub, key, made.json()["id"], tenant)


@pytest.fixture(scope="module")
def key() -> JWK:
    return new_key()


@pytest.mark.requirement("OA-2")
@pytest.mark.parametrize("alg", ["RS256", "ES256"])
async def test_an_assertion_gets_a_token_once(hub: Hub, alg: str) -> None:
    client = await signer(hub, new_key(alg=alg))
    for aud in (ISSUER, TOKEN, [ISSUER], [TOKEN, ISSUER]):
        assertion = client.assertion(aud=aud)
        answer = await client.ask(assertion, client_id=client.client_id)
        assert answer.status_code == 200, answer.text
        async with hub.client(answer.json()["access_token"]) as http:
            assert (await http.get("/ssf/streams")).status_code == 200
        assert (await client.ask(assertion)).status_code == 401


@pytest.mark.requirement("OA-2")
async def test_a_replay_is_refused_in_every_process_and_of_two_at_once_one_wins(
    hub: Hub, key: JWK
) -> None:
    client = await signer(hub, key)
    # Another process: memory of its own, the same database.
    other = make_app(hub.node, hub.outside)
    transport = httpx2.ASGITransport(other)
    async with (
        httpx2.AsyncClient(transport=transport, base_url=ISSUER) as there,
        hub.client() as here,
    ):
        first = client.assertion()
        assert (await client.ask(first, here)).status_code == 200
        assert (await client.ask(first, there)).status_code == 401
        second = client.assertion()
        answers = await asyncio.gather(
            *(client.ask(second, http) for http in (here, there, here, there))
        )
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]


@ONE_ENGINE
async def test_used_assertions_are_forgotten_once_they_expired(hub: Hub, key: JWK) -> None:
    client = await signer(hub, key)
    assert (await client.ask(client.assertion())).status_code == 200

    async def remembered() -> int:
        async with hub.database.snapshot() as connection:
            query = client_assertions.select().where(client_assertions.c.tenant_id == DEFAULT)
            return len((await connection.execute(query)).all())

    keeper = LeaseKeeper(LEASE_KIND, "test", writer=hub.node.writer, clock=hub.clock)
    await keeper.renew()
    await hub.core.purge(keeper.fence(LEADER_BUCKET))
    assert await remembered() == 1
    hub.clock.advance(61)
    await hub.core.purge(keeper.fence(LEADER_BUCKET))
    assert await remembered() == 0


@pytest.mark.requirement("OA-2")
@ONE_ENGINE
async def test_what_proves_nothing_gets_nothing_and_no_reason(hub: Hub, key: JWK) -> None:
    client = await signer(hub, key)
    other = await signer(hub, new_key())
    await hub.add_tenant("blue")
    now_s = int(hub.clock.now().timestamp())
    events: dict[str, Any] = {"https://schemas.openid.net/secevent/ssf/event-type/verification": {}}
    head, body, signature = client.assertion().split(".")
    attacks = [
        client.assertion(key=other.key),
        client.assertion(key=new_key(kid="k-1")),
        client.assertion(iss=other.client_id),
        client.assertion(sub=other.client_id),
        client.assertion(iss=other.client_id, sub=other.client_id),
        client.assertion(iss="cli_nobody", sub="cli_nobody"),
        *(
            client.assertion(aud=aud)
            for aud in (
                "https://other.example",
                [ISSUER, "https://other.example"],
                [],
                f"{ISSUER}/t/blue",
                f"{ISSUER}/",
                f"{ISSUER}/oauth/introspect",
                7,
            )
        ),
        client.assertion(exp=now_s),
        client.assertion(exp=now_s - 1),
        client.assertion(exp=now_s + LIFETIME_MAX_S + 31),
        client.assertion(exp=1e300),
        client.assertion(exp="soon"),
        client.assertion(exp=True),
        client.assertion(nbf=now_s + 40),
        client.assertion(iat=now_s + 40),
        client.assertion(jti=""),
        client.assertion(jti="x" * 256),
        client.assertion(jti=7),
        client.assertion(events=events),
        client.assertion(typ="secevent+jwt"),
        client.assertion(typ="at+jwt"),
        client.assertion(typ="logout+jwt"),
        client.assertion(iss=None),
        client.assertion(sub=None),
        client.assertion(aud=None),
        client.assertion(exp=None),
        client.assertion(jti=None),
        f"{_part({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        f"{_part({'alg': 'none', 'typ': 'JWT'})}.{body}.{signature}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body}.",
        _hs256(client),
        "",
        "a.b.c",
        "☃",
    ]
    answers = []
    for number, attack in enumerate(attacks):
        # Each from an address of its own, so that none is refused for coming too often.
        transport = httpx2.ASGITransport(hub.app, client=(f"192.0.2.{number}", 1))
        async with httpx2.AsyncClient(transport=transport, base_url=ISSUER) as http:
            answers.append(await client.ask(attack, http))
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert (await client.ask(client.assertion())).status_code == 200


@ONE_ENGINE
async def test_a_client_with_a_key_has_no_other_way_in(hub: Hub, key: JWK) -> None:
    client = await signer(hub, key)
    secretive = await hub.token("ssf.read", name="secretive")
    async with hub.client() as http:
        form = {"grant_type": "client_credentials", "client_id": client.client_id}
        for secret in ("", "x", secretive):
            answer = await http.post("/oauth/token", data={**form, "client_secret": secret})
            assert answer.status_code == 401
        assert (await http.post("/oauth/token", data=form)).status_code == 401
    assertion = client.assertion()
    assert (await client.ask(assertion, client_secret="x")).status_code == 400
    assert (await client.ask(assertion, client_id="cli_other")).status_code == 401
    wrong_type = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"
    assert (await client.ask(assertion, client_assertion_type=wrong_type)).status_code == 401
    assert (await client.ask(assertion)).status_code == 200


@ONE_ENGINE
async def test_a_client_with_a_secret_cannot_bring_a_key(hub: Hub, key: JWK) -> None:
    async with hub.client(await hub.token()) as admin:
        made = (
            await admin.post("/admin/v1/clients", json={"name": "s", "scopes": ["ssf.read"]})
        ).json()
        refused = await admin.patch(f"/admin/v1/clients/{made['id']}", json={"jwks": jwks(key)})
        assert refused.status_code == 400
    await hub.node.feed.refresh()
    client = Signer(hub, key, made["id"])
    assert (await client.ask(client.assertion())).status_code == 401


@ONE_ENGINE
async def test_an_assertion_for_one_tenant_is_none_in_another(hub: Hub, key: JWK) -> None:
    await hub.add_tenant("blue")
    client = await signer(hub, key)
    assertion = client.assertion()
    client.tenant = "blue"
    assert (await client.ask(assertion)).status_code == 401
    client.tenant = DEFAULT
    assert (await client.ask(assertion)).status_code == 200


@ONE_ENGINE
async def test_published_keys_are_fetched_and_unknown_kids_do_not_hammer_them(hub: Hub) -> None:
    first, second = new_key("k-1", "ES256"), new_key("k-2", "ES256")
    hub.outside.answer(KEYS_URL, 200, jwks(first))
    client = await signer(hub, first, jwks_uri=KEYS_URL)
    assert (await client.ask(client.assertion())).status_code == 200
    for number in range(30):
        made_up = new_key(f"made-up-{number}", "ES256")
        transport = httpx2.ASGITransport(hub.app, client=(f"192.0.2.{number}", 1))
        async with httpx2.AsyncClient(transport=transport, base_url=ISSUER) as http:
            answer = await client.ask(client.assertion(key=made_up), http)
        # Undecided while nobody may ask again: perhaps it is a new key.
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
    assert [request.url for request in hub.outside.requests] == [KEYS_URL]
    assert (await client.ask(client.assertion())).status_code == 200
    hub.outside.answer(KEYS_URL, 200, jwks(second))
    hub.clock.advance(REFETCH_COOLDOWN.total_seconds())
    assert (await client.ask(client.assertion(key=second))).status_code == 200
    assert (await client.ask(client.assertion(key=first))).status_code != 200
    assert len(hub.outside.requests) == 2


@ONE_ENGINE
async def test_unreachable_keys_prove_nothing(hub: Hub, key: JWK) -> None:
    hub.outside.answer(KEYS_URL, 500)
    client = await signer(hub, key, jwks_uri=KEYS_URL)
    answer = await client.ask(client.assertion())
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


@ONE_ENGINE
async def test_keys_are_exchanged_by_an_admin_and_the_old_one_is_dead(hub: Hub, key: JWK) -> None:
    client = await signer(hub, key)
    renewed = new_key("k-2", "ES256")
    async with hub.client(await hub.token()) as admin:
        path = f"/admin/v1/clients/{client.client_id}"
        changed = await admin.patch(path, json={"jwks": jwks(renewed)})
        assert changed.status_code == 200, changed.text
        bodies: tuple[dict[str, Any], ...] = (
            {"jwks": None},
            {"jwks": {"keys": []}},
            {"jwks": {"keys": [renewed.export_private(as_dict=True)]}},
            {"jwks": {"keys": [{"kty": "oct", "k": "AAAA"}]}},
            {"jwks_uri": "http://app.example/jwks"},
            {"jwks_uri": "file:///etc/passwd"},
            {"jwks_uri": KEYS_URL, "jwks": jwks(renewed)},
            {"scopes": ["root"]},
            {"scopes": None},
        )
        for body in bodies:
            assert (await admin.patch(path, json=body)).status_code == 400, body
    await hub.node.feed.refresh()
    assert (await client.ask(client.assertion())).status_code == 401
    assert (await client.ask(client.assertion(key=renewed))).status_code == 200


@ONE_ENGINE
async def test_who_fails_too_often_is_told_to_wait_and_nobody_else_is(hub: Hub, key: JWK) -> None:
    client = await signer(hub, key)
    async with hub.client() as http:
        for _ in range(int(FAILURES_AT_ONCE)):
            assert (await client.ask(client.assertion(exp=1), http)).status_code == 401
        told = await client.ask(client.assertion(), http)
        assert (told.status_code, told.json()["error"]) == (429, "slow_down")
        assert int(told.headers["retry-after"]) > 0
        for path in ("/oauth/introspect", "/oauth/revoke"):
            form = {"client_id": client.client_id, "client_secret": "x", "token": "x"}
            assert (await http.post(path, data=form)).status_code == 429
    elsewhere = httpx2.ASGITransport(hub.app, client=("192.0.2.1", 1))
    async with httpx2.AsyncClient(transport=elsewhere, base_url=ISSUER) as http:
        assert (await client.ask(client.assertion(), http)).status_code == 200
    hub.clock.advance(6)
    assert (await client.ask(client.assertion())).status_code == 200


@ONE_ENGINE
async def test_a_client_gets_only_so_many_tokens(hub: Hub) -> None:
    client = await signer(hub, new_key(alg="ES256"))
    answers = [await client.ask(client.assertion()) for _ in range(int(TOKENS_AT_ONCE) + 1)]
    assert [answer.status_code for answer in answers] == [200] * int(TOKENS_AT_ONCE) + [429]
    hub.clock.advance(1)
    assert (await client.ask(client.assertion())).status_code == 200


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).rstrip(b"=").decode()


def _hs256(client: Signer) -> str:
    """Return an assertion made with the public key as HMAC secret."""
    text = f"{_part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'k-1'})}.{_part(client.claims())}"
    secret = client.key.export_to_pem()
    signature = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
