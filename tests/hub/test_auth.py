"""Who may ask: bearer tokens, their errors, and the order of checks."""

from __future__ import annotations

import dataclasses

import httpx2
import msgspec
import pytest

from hub.app import make_app
from tests.hub.conftest import ALL_SCOPES, ISSUER, ONE_ENGINE, Hub

CHALLENGE = 'Bearer realm="signalhub"'
DOCUMENT = f"{ISSUER}/.well-known/oauth-protected-resource"
WHERE = f'resource_metadata="{DOCUMENT}"'
WHERE_STREAMS = f'resource_metadata="{DOCUMENT}/ssf/streams"'
pytestmark = ONE_ENGINE


@pytest.mark.requirement("OA-3", "INT-29", "SSF-AUTH-1")
async def test_without_a_token_the_challenge_names_no_error(hub: Hub) -> None:
    async with hub.client() as client:
        for path, where in (
            ("/ssf/streams", WHERE_STREAMS),
            ("/admin/v1/apps", WHERE),
            ("/v1/risk/users", WHERE),
            ("/metrics", WHERE),
        ):
            answer = await client.get(path)

            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == f"{CHALLENGE}, {where}"


@pytest.mark.requirement("OA-3", "INT-28", "INT-29")
@pytest.mark.parametrize(
    "value", ["Bearer nonsense", "Bearer ", "bearer shc_x", f"Bearer {'x' * 5000}", "Bearer é"]
)
async def test_a_token_we_do_not_know_is_invalid(hub: Hub, value: str) -> None:
    async with hub.client() as client:
        answer = await client.get(
            "/ssf/streams", headers=[(b"authorization", value.encode("latin-1"))]
        )

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == (
        f'{CHALLENGE}, error="invalid_token", {WHERE_STREAMS}'
    )


@pytest.mark.requirement("INT-26")
async def test_another_scheme_is_no_token(hub: Hub) -> None:
    token = await hub.token()
    async with hub.client() as client:
        answer = await client.get("/ssf/streams", headers={"authorization": f"Basic {token}"})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == f"{CHALLENGE}, {WHERE_STREAMS}"


@pytest.mark.requirement("INT-29", "OA-3")
async def test_a_missing_scope_is_named(hub: Hub) -> None:
    async with hub.client(await hub.token("ssf.read")) as client:
        answer = await client.get("/admin/v1/apps")

    assert answer.status_code == 403
    assert answer.headers["www-authenticate"] == (
        f'{CHALLENGE}, error="insufficient_scope", scope="admin.read", {WHERE}'
    )


@pytest.mark.requirement("INT-26", "INT-27")
@pytest.mark.parametrize("name", ["access_token", "%61ccess%5Ftoken"])
@pytest.mark.parametrize("path", ["/ssf/streams", "/healthz", "/nowhere"])
async def test_a_token_in_the_query_is_refused_even_when_it_is_good(
    hub: Hub, name: str, path: str
) -> None:
    token = await hub.token()
    async with hub.client(token) as client:
        answer = await client.get(f"{path}?stream_id=x&{name}={token}")

    assert answer.status_code == 400
    assert answer.headers["www-authenticate"] == f'{CHALLENGE}, error="invalid_request"'
    assert token not in answer.text


async def test_a_parameter_that_only_looks_like_a_token_passes(admin: httpx2.AsyncClient) -> None:
    answer = await admin.get("/ssf/streams?my_access_token=1")

    assert answer.status_code == 200


@pytest.mark.requirement("OA-3")
async def test_two_authorization_headers_are_refused(hub: Hub) -> None:
    token = await hub.token()
    both = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]
    async with hub.client() as client:
        answer = await client.get("/ssf/streams", headers=both)

    assert answer.status_code == 400
    assert answer.headers["www-authenticate"] == f'{CHALLENGE}, error="invalid_request"'


@pytest.mark.requirement("SSF-OP-52", "EGW-8")
async def test_the_method_is_checked_before_the_token(hub: Hub) -> None:
    async with hub.client() as client:
        answer = await client.request("DELETE", "/ssf/status")

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) >= {"GET"}


@pytest.mark.requirement("SSF-OP-52", "EGW-8")
async def test_the_token_is_checked_before_the_body_and_the_body_before_the_stream(
    hub: Hub,
) -> None:
    async def send_broken(client: httpx2.AsyncClient) -> int:
        json = {"content-type": "application/json"}
        return (await client.post("/ssf/poll/str_none", content=b"{", headers=json)).status_code

    async with hub.client() as stranger:
        assert await send_broken(stranger) == 401
    async with hub.client(await hub.token("risk.read")) as reader:
        assert await send_broken(reader) == 403
    async with hub.client(await hub.token("ssf.read")) as poller:
        assert await send_broken(poller) == 400
        assert (await poller.post("/ssf/poll/str_none", json={})).status_code == 404


@pytest.mark.requirement("INT-28")
async def test_a_token_stops_working_when_its_client_is_deleted(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    made = (
        await admin.post("/admin/v1/clients", json={"name": "x", "scopes": ["ssf.read"]})
    ).json()
    async with hub.client(made["token"]) as client:
        assert (await client.get("/ssf/streams")).status_code == 200
        assert (await admin.delete(f"/admin/v1/clients/{made['id']}")).status_code == 204
        await hub.node.feed.refresh()

        assert (await client.get("/ssf/streams")).status_code == 401


async def test_a_client_cannot_delete_itself(hub: Hub) -> None:
    async with hub.client(await hub.token(name="me")) as client:
        (own,) = (await client.get("/admin/v1/clients")).json()["items"]
        answer = await client.delete(f"/admin/v1/clients/{own['id']}")

        assert answer.status_code == 409
        assert (await client.get("/admin/v1/clients")).status_code == 200


@pytest.mark.requirement("SSF-SEC-1")
async def test_a_client_that_asks_too_often_waits_and_nobody_else_does(hub: Hub) -> None:
    config = msgspec.structs.replace(hub.node.config, client_requests_per_s=0.5)
    app = make_app(dataclasses.replace(hub.node, config=config), hub.outside)
    eager, other = await hub.token("ssf.read"), await hub.token("ssf.read")
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url=ISSUER) as client:

        async def ask(token: str) -> httpx2.Response:
            return await client.get("/ssf/streams", headers={"authorization": f"Bearer {token}"})

        assert (await ask(eager)).status_code == 200
        told = await ask(eager)
        assert (told.status_code, told.headers["retry-after"]) == (429, "2")
        assert told.json()["err"] == "too_many_requests"
        assert (await ask(other)).status_code == 200
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.requirement("INT-23", "INT-24", "INT-25", "SSF-AUTH-6", "EGW-51")
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/ssf/streams", {"ssf.read", "ssf.manage"}),
        ("GET", "/ssf/status?stream_id=str_none", {"ssf.read", "ssf.manage"}),
        ("POST", "/ssf/streams", {"ssf.manage"}),
        ("DELETE", "/ssf/streams?stream_id=str_none", {"ssf.manage"}),
        ("POST", "/ssf/poll/str_none", {"ssf.read", "ssf.manage", "ssf.manage.poll"}),
    ],
)
async def test_stream_operations_take_exactly_their_scopes(
    hub: Hub, method: str, path: str, allowed: set[str]
) -> None:
    for scope in ALL_SCOPES:
        async with hub.client(await hub.token(scope)) as client:
            answer = await client.request(method, path, json={} if method == "POST" else None)

        assert (answer.status_code != 403) == (scope in allowed), scope
