"""OAuth: who gets an access token, what it opens, and when it stops to."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec
import pytest
from jwcrypto.jwk import JWK

import runtime.store
from hub import store
from hub.auth import token_hash
from hub.oauth.proving import FAILURES_AT_ONCE
from hub.oauth.routes import FORM_BYTES_MAX
from hub.oauth.tokens import LIFETIME_S, TYP
from hub.store import Client
from runtime.clock import epoch_s
from runtime.feed import bump
from runtime.keyring import make_keys
from ssf.jose import sign, signing_key, split_jws
from tests.hub.conftest import DEFAULT, ISSUER, ONE_ENGINE, Hub

pytestmark = ONE_ENGINE

FORM = {"content-type": "application/x-www-form-urlencoded"}
SCOPES = ("ssf.read", "ssf.manage")


@dataclass
class Party:
    """A client with its secret."""

    hub: Hub
    client_id: str
    secret: str
    tenant: str = DEFAULT

    @property
    def basic(self) -> dict[str, str]:
        pair = f"{self.client_id}:{self.secret}".encode()
        return {"authorization": "Basic " + base64.b64encode(pair).decode()}

    async def ask(self, **form: str) -> httpx2.Response:
        """Ask for a token with client_secret_basic."""
        async with self.hub.client(tenant=self.tenant) as http:
            body = {"grant_type": "client_credentials", **form}
            return await http.post("/oauth/token", data=body, headers=self.basic)

    async def token(self, **form: str) -> str:
        answer = await self.ask(**form)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    async def post(self, path: str, token: str) -> httpx2.Response:
        """Ask another endpoint of OAuth about a token."""
        async with self.hub.client(tenant=self.tenant) as http:
            return await http.post(path, data={"token": token}, headers=self.basic)


async def party(hub: Hub, *scopes: str, tenant: str = DEFAULT) -> Party:
    """Make a client as an admin does."""
    async with hub.client(await hub.token(tenant=tenant), tenant=tenant) as admin:
        body = {"name": f"app {len(scopes)} {tenant}", "scopes": list(scopes or SCOPES)}
        made = (await admin.post("/admin/v1/clients", json=body)).json()
    await hub.node.feed.refresh()
    return Party(hub, made["id"], made["token"], tenant)


@pytest.fixture
async def app(hub: Hub) -> Party:
    return await party(hub)


async def streams(hub: Hub, token: str, *, tenant: str = DEFAULT) -> httpx2.Response:
    async with hub.client(token, tenant=tenant) as http:
        return await http.get("/ssf/streams")


@pytest.mark.requirement("INT-21", "INT-23", "INT-26", "OA-1", "OA-7")
async def test_a_client_gets_a_token_for_an_hour_that_opens_what_the_client_may_do(
    hub: Hub, app: Party
) -> None:
    answer = await app.ask()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    token = told.pop("access_token")
    assert told == {"token_type": "Bearer", "expires_in": 3600, "scope": "ssf.manage ssf.read"}
    jws = split_jws(token.encode())
    assert (jws.header.typ, jws.header.alg) == (TYP, "RS256")
    claims = msgspec.json.decode(jws.payload)
    now_s = epoch_s(hub.clock.now())
    assert claims.pop("jti").startswith("tok_")
    assert claims == {
        "iss": ISSUER,
        "sub": app.client_id,
        "aud": ISSUER,
        "client_id": app.client_id,
        "scope": "ssf.manage ssf.read",
        "iat": now_s,
        "exp": now_s + LIFETIME_S,
    }
    async with hub.client(token) as http:
        made = await http.post("/ssf/streams", json={"events_requested": []})
        assert made.status_code == 201
        assert made.json()["aud"] == app.client_id
        assert (await http.get("/admin/v1/clients")).status_code == 403
    hub.clock.advance(LIFETIME_S - 1)
    assert (await streams(hub, token)).status_code == 200
    hub.clock.advance(1)
    refused = await streams(hub, token)
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]


@pytest.mark.requirement("INT-25", "INT-29")
async def test_a_client_may_ask_for_less_and_never_for_more(hub: Hub, app: Party) -> None:
    token = await app.token(scope="ssf.read")
    async with hub.client(token) as http:
        assert (await http.get("/ssf/streams")).status_code == 200
        refused = await http.post("/ssf/streams", json={})
        assert refused.status_code == 403
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    for scope in ("admin.write", "ssf.read admin.write", "nonsense"):
        answer = await app.ask(scope=scope)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")


@pytest.mark.requirement("OA-1")
async def test_the_secret_may_come_in_the_body_too_but_not_twice(hub: Hub, app: Party) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_id": app.client_id,
        "client_secret": app.secret,
    }
    async with hub.client() as http:
        assert (await http.post("/oauth/token", data=form)).status_code == 200
        twice = await http.post("/oauth/token", data=form, headers=app.basic)
        assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")


@pytest.mark.requirement("OA-1")
async def test_whoever_does_not_prove_itself_learns_nothing(hub: Hub, app: Party) -> None:
    answers = []
    for client_id, secret in (
        (app.client_id, "wrong"),
        ("cli_nobody", app.secret),
        (app.client_id, ""),
        ("", ""),
    ):
        answers.append(await Party(hub, client_id, secret).ask())
        async with hub.client() as http:
            form = {
                "grant_type": "client_credentials",
                "client_id": client_id,
                "client_secret": secret,
            }
            answers.append(await http.post("/oauth/token", data=form))
    async with hub.client() as http:
        answers.append(await http.post("/oauth/token", data={"grant_type": "client_credentials"}))
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.text for answer in answers} == {
        '{"error":"invalid_client","error_description":"Client authentication failed."}'
    }
    assert all(answer.headers["www-authenticate"].startswith("Basic ") for answer in answers)


@pytest.mark.parametrize(
    ("write", "status"),
    [
        (lambda pair: f"Basic {pair}", 200),
        (lambda pair: f"basic  {pair} \t", 200),
        (lambda pair: f"Basic {pair[:4]}!{pair[4:]}", 401),
        (lambda pair: f"Basic {pair[:4]} {pair[4:]}", 401),
        (lambda pair: f"Basic\t{pair} ", 401),
    ],
)
async def test_guesses_of_a_secret_are_counted_however_they_are_written(
    hub: Hub, app: Party, write: Callable[[str], str], status: int
) -> None:
    """Two readers of one header saw two clients in it: one was counted, the other was tried."""

    async def ask(secret: str, attempt: int) -> int:
        pair = base64.b64encode(f"{app.client_id}:{secret}".encode()).decode()
        async with hub.client() as http:
            body = {"grant_type": "client_credentials", "client_id": f"cli_{attempt}"}
            answer = await http.post(
                "/oauth/token", data=body, headers={"authorization": write(pair)}
            )
        return answer.status_code

    assert await ask(app.secret, 0) == status
    guesses = [await ask("wrong", attempt) for attempt in range(int(FAILURES_AT_ONCE) + 1)]
    assert guesses == [401] * int(FAILURES_AT_ONCE) + [429 if status == 200 else 401]


async def test_a_basic_header_that_cannot_be_read_proves_nothing(hub: Hub, app: Party) -> None:
    async with hub.client() as http:
        for value in ("Basic", "Basic ", "Basic /w==", "Basic Zg==", "Basic =", "Bearer x"):
            answer = await http.post(
                "/oauth/token",
                data={"grant_type": "client_credentials", "client_id": app.client_id},
                headers={"authorization": value},
            )
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), value


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"grant_type=client_credentials&grant_type=client_credentials", FORM),
        (b"grant_type=client_credentials", {"content-type": "application/json"}),
        (b'{"grant_type": "client_credentials"}', FORM),
        (b"grant_type=client_credentials&x=" + b"y" * FORM_BYTES_MAX, FORM),
        (b"grant_type=\xff\xfe", FORM),
        (b"grant_type=%ff%fe", FORM),
        (b"grant_type=%00", FORM),
        (b"", FORM),
        (b"grant_type=password&username=a&password=b", FORM),
        (b"grant_type=authorization_code&code=x", FORM),
    ],
)
async def test_a_malformed_request_is_refused_in_the_form_of_the_standard(
    hub: Hub, app: Party, body: bytes, headers: dict[str, str]
) -> None:
    async with hub.client() as http:
        for path in ("/oauth/token", "/oauth/revoke", "/oauth/introspect"):
            answer = await http.post(path, content=body, headers={**headers, **app.basic})
            assert answer.status_code == 400, f"{path}: {answer.text}"
            assert answer.json()["error"] in {"invalid_request", "unsupported_grant_type"}
            assert answer.headers["cache-control"] == "no-store"


@pytest.mark.requirement("INT-28", "OA-9", "OA-10")
async def test_a_revoked_token_is_dead_at_once_and_only_that_one(hub: Hub, app: Party) -> None:
    first, second = await app.token(), await app.token()
    stranger = await party(hub, "ssf.read")
    assert (await stranger.post("/oauth/revoke", first)).status_code == 200
    assert (await streams(hub, first)).status_code == 200
    for token in (first, first, "nonsense", "a.b.c", "☃.b.c"):
        answer = await app.post("/oauth/revoke", token)
        assert (answer.status_code, answer.content) == (200, b"")
    assert (await streams(hub, first)).status_code == 401
    assert (await streams(hub, second)).status_code == 200
    assert [entry.action for entry in await hub.audit()].count("token.revoke") == 1


@pytest.mark.requirement("INT-28")
async def test_the_tokens_of_a_deleted_client_are_dead(hub: Hub, app: Party) -> None:
    token = await app.token()
    assert (await streams(hub, token)).status_code == 200
    async with hub.client(await hub.token()) as admin:
        assert (await admin.delete(f"/admin/v1/clients/{app.client_id}")).status_code == 204
    await hub.node.feed.refresh()
    assert (await streams(hub, token)).status_code == 401
    assert (await app.ask()).status_code == 401


@pytest.mark.requirement("OA-8")
async def test_introspection_tells_a_client_of_its_own_tokens_and_an_admin_of_all(
    hub: Hub, app: Party
) -> None:
    token = await app.token(scope="ssf.read")
    told = (await app.post("/oauth/introspect", token)).json()
    assert (told["active"], told["client_id"], told["scope"]) == (True, app.client_id, "ssf.read")
    assert told["exp"] - told["iat"] == LIFETIME_S
    stranger = await party(hub, "ssf.read")
    assert (await stranger.post("/oauth/introspect", token)).json() == {"active": False}
    admin = await party(hub, "admin.read", "admin.write", "ssf.read")
    assert (await admin.post("/oauth/introspect", token)).json()["active"]
    for nothing in ("nonsense", "a.b.c", "é.b.c", "☃.b.c", app.secret):
        assert (await app.post("/oauth/introspect", nothing)).json() == {"active": False}
    await app.post("/oauth/revoke", token)
    assert (await app.post("/oauth/introspect", token)).json() == {"active": False}


@pytest.mark.requirement("OA-3", "OA-6")
async def test_a_401_says_where_tokens_come_from(hub: Hub) -> None:
    await hub.add_tenant("blue")
    where = f"{ISSUER}/.well-known/oauth-protected-resource"
    for tenant, document, base in (
        (DEFAULT, where, ISSUER),
        ("blue", f"{where}/t/blue", f"{ISSUER}/t/blue"),
    ):
        async with hub.client(tenant=tenant) as http:
            for path, url, resource in (
                ("/ssf/streams", f"{document}/ssf/streams", f"{base}/ssf/streams"),
                ("/v1/risk/users", document, base),
            ):
                answer = await http.get(path)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == (
                    f'Bearer realm="signalhub", resource_metadata="{url}"'
                )
                # RFC 9728 §3.3: for SSF endpoints exactly what was called.
                assert (await http.get(url)).json()["resource"] == resource


@pytest.mark.requirement("OA-5", "INT-30")
async def test_each_resource_describes_itself_and_is_an_audience_of_its_own(
    hub: Hub, app: Party
) -> None:
    endpoints = ("/ssf/streams", "/ssf/status", "/ssf/subjects:add", "/ssf/verify")
    async with hub.client() as http:
        for path in ("", "/ssf", *endpoints, "/ssf/poll/str_1"):
            told = (await http.get(f"/.well-known/oauth-protected-resource{path}")).json()
            assert told["resource"] == ISSUER + path
            assert told["authorization_servers"] == [ISSUER]
            assert "ssf.manage" in told["scopes_supported"]
            assert ("admin.write" in told["scopes_supported"]) == (not path)
            token = await app.token(resource=ISSUER + path)
            aud = msgspec.json.decode(split_jws(token.encode()).payload)["aud"]
            assert aud == ISSUER + path
            opens = (await streams(hub, token)).status_code
            assert opens == (200 if path in {"", "/ssf", "/ssf/streams"} else 401), path
            shown = (await app.post("/oauth/introspect", token)).json()
            assert (shown["active"], shown["aud"]) == (True, ISSUER + path)
        for path in ("/v1", "/ssf/nothing", "/ssf/poll/a/b", "/ssf/", "/admin/v1/apps"):
            absent = await http.get(f"/.well-known/oauth-protected-resource{path}")
            assert absent.status_code == 404, path


@pytest.mark.parametrize(
    "resource",
    [
        "https://other.example",
        f"{ISSUER}.evil.example",
        f"{ISSUER}/t/blue",
        f"{ISSUER}/t/blue/ssf",
        f"{ISSUER}/ssf/nothing",
        f"{ISSUER}/ssf?x=1",
        "",
    ],
)
async def test_no_token_is_given_for_what_is_no_resource_of_this_tenant(
    hub: Hub, app: Party, resource: str
) -> None:
    await hub.add_tenant("blue")
    answer = await app.ask(resource=resource)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_target")


async def test_a_narrow_token_opens_nothing_outside_its_resource(hub: Hub) -> None:
    admin = await party(hub, "admin.read", "ssf.read")
    token = await admin.token(resource=f"{ISSUER}/ssf")
    async with hub.client(token) as http:
        assert (await http.get("/ssf/streams")).status_code == 200
        for path in ("/admin/v1/clients", "/metrics", "/ssfx", "/v1/risk/users"):
            assert (await http.get(path)).status_code in {401, 404}, path


async def test_what_is_in_a_path_cannot_leave_the_challenge(hub: Hub) -> None:
    async with hub.client() as http:
        answer = await http.post("/ssf/poll/%22%0d%0aset-cookie:%20a=b,%20scope=%22x", json={})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert answer.headers["www-authenticate"].count('"') == 4


async def test_access_token_keys_are_published_apart_from_all_others(hub: Hub) -> None:
    async with hub.client() as http:
        signing = {key["kid"] for key in (await http.get("/jwks.json")).json()["keys"]}
        tokens = {key["kid"] for key in (await http.get("/oauth/jwks.json")).json()["keys"]}
        server = (await http.get("/.well-known/oauth-authorization-server")).json()
    assert server["jwks_uri"] == f"{ISSUER}/oauth/jwks.json"
    assert signing == {"set-1", "logout-1", "gtr-1"}
    assert tokens == {"access_token-1"}


async def test_an_installation_whose_key_has_the_old_name_goes_on_with_it(
    hub: Hub, app: Party
) -> None:
    async with hub.database.transaction() as connection:
        table = runtime.store.signing_keys
        await connection.execute(
            table.update()
            .where(table.c.tenant_id == DEFAULT, table.c.purpose == "access_token")
            .values(purpose="token")
        )
        await bump(connection, DEFAULT, "keys")
    await hub.node.feed.refresh()
    token = await app.token()
    assert split_jws(token.encode()).header.kid == "access_token-1"
    assert (await streams(hub, token)).status_code == 200
    assert await make_keys(hub.database, hub.node.box, hub.clock, DEFAULT) == []
    async with hub.client() as http:
        assert len((await http.get("/jwks.json")).json()["keys"]) == 3
        assert len((await http.get("/oauth/jwks.json")).json()["keys"]) == 1


@pytest.mark.requirement("SET-40", "SET-41", "SET-42")
async def test_only_a_whole_access_token_of_this_tenant_is_one(hub: Hub, app: Party) -> None:
    await hub.add_tenant("blue")
    good = await app.token()
    claims = msgspec.json.decode(split_jws(good.encode()).payload)
    keyring = hub.node.keyring
    token_key = signing_key(await keyring.current(DEFAULT, "access_token"))

    def forged(key: Any = token_key, typ: str = TYP, **changes: Any) -> str:
        return sign(msgspec.json.encode(claims | changes), key, typ=typ).decode()

    own = JWK.generate(kty="RSA", size=2048, kid=token_key.kid, use="sig", alg="RS256")
    head, body, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').rstrip(b"=").decode()
    assert (await streams(hub, forged())).status_code == 200
    assert (await streams(hub, forged(aud=["https://x.example", ISSUER]))).status_code == 200
    for token in (
        forged(key=signing_key(own.export(as_dict=True))),
        forged(key=signing_key(await keyring.current(DEFAULT, "set"))),
        forged(key=signing_key(await keyring.current(DEFAULT, "logout"))),
        forged(typ="secevent+jwt"),
        forged(typ="logout+jwt"),
        forged(typ="JWT"),
        forged(iss="https://other.example"),
        forged(aud=f"{ISSUER}/t/blue"),
        forged(exp=claims["iat"]),
        forged(client_id="cli_nobody"),
        forged(scope=7),
        forged(aud=[]),
        forged(aud=["https://other.example", f"{ISSUER}/t/blue/ssf"]),
        forged(aud={"a": ISSUER}),
        forged(aud=f"{ISSUER}/ssf/poll/str_1"),
        forged(events={"https://schemas.openid.net/secevent/ssf/event-type/verification": {}}),
        forged(events=None),
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body}.",
        "a.b.c",
        "..",
    ):
        assert (await streams(hub, token)).status_code == 401, token
    assert (await streams(hub, good, tenant="blue")).status_code == 401


async def test_a_scope_that_a_client_lost_is_lost_in_its_tokens(hub: Hub, app: Party) -> None:
    claims = {
        **msgspec.json.decode(split_jws((await app.token()).encode()).payload),
        "scope": "ssf.read admin.write",
    }
    key = signing_key(await hub.node.keyring.current(DEFAULT, "access_token"))
    token = sign(msgspec.json.encode(claims), key, typ=TYP).decode()
    assert (await streams(hub, token)).status_code == 200
    async with hub.client(token) as http:
        assert (await http.get("/admin/v1/clients")).status_code == 403


@pytest.mark.requirement("INT-20", "OA-4", "OA-5")
async def test_metadata_leads_from_the_resource_to_its_tokens(hub: Hub) -> None:
    await hub.add_tenant("blue")
    async with hub.client() as http:
        for path, base in (("", ISSUER), ("/t/blue", f"{ISSUER}/t/blue")):
            resource = (await http.get(f"/.well-known/oauth-protected-resource{path}")).json()
            assert resource["resource"] == base
            assert resource["authorization_servers"] == [base]
            server = (await http.get(f"/.well-known/oauth-authorization-server{path}")).json()
            assert server["issuer"] == base
            assert server["token_endpoint"] == f"{base}/oauth/token"
            assert server["grant_types_supported"] == ["client_credentials"]
            assert set(server["token_endpoint_auth_methods_supported"]) == {
                "private_key_jwt",
                "client_secret_basic",
                "client_secret_post",
            }
            assert "ssf.manage" in server["scopes_supported"]


async def test_a_static_token_with_dots_still_opens_what_it_did(hub: Hub) -> None:
    chosen = "chosen.by.somebody-with-a-taste-for-dots"
    async with hub.database.transaction() as connection:
        client = Client(
            tenant_id=DEFAULT,
            client_id="cli_dots",
            name="dots",
            token_hash=token_hash(chosen),
            scopes=("ssf.read",),
            app_id=None,
            created_at=hub.clock.now(),
        )
        await store.add_client(connection, client)
        await bump(connection, DEFAULT, "clients")
    assert (await streams(hub, chosen)).status_code == 200


async def test_a_token_is_dead_once_its_key_is_withdrawn_however_often_it_was_good(
    hub: Hub, app: Party
) -> None:
    token = await app.token()
    assert (await streams(hub, token)).status_code == 200
    stolen = split_jws(token.encode()).header.kid
    async with hub.client(await hub.token()) as admin:
        made = (await admin.post("/admin/v1/keys:prepare", json={"purpose": "access_token"})).json()
        for kid, step in ((made["id"], "activate"), (stolen, "withdraw")):
            answer = await admin.post(f"/admin/v1/keys/{kid}/{step}", json={"at_once": True})
            assert answer.status_code == 200, answer.text
    await hub.node.feed.refresh()
    assert (await streams(hub, token)).status_code == 401
    assert (await streams(hub, await app.token())).status_code == 200
