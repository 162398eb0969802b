"""Tenants: an owner makes, changes and suspends them at the root issuer, and nobody else does."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from hub.auth import SCOPES
from tests.hub.commands import Served
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub
from tests.hub.story import begin

TENANTS = "/admin/v1/tenants"
GREEN = {"id": "green", "name": "Green GmbH"}


async def made(hub: Hub, admin: httpx2.AsyncClient, **members: Any) -> dict[str, Any]:
    answer = await admin.post(TENANTS, json={**GREEN, **members})
    assert answer.status_code == 201, answer.text
    await hub.node.feed.refresh()
    tenant: dict[str, Any] = answer.json()
    return tenant


async def test_a_new_tenant_works_at_once_and_has_an_admin_of_its_own(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    tenant = await made(hub, admin, default_subjects="NONE")
    assert tenant["issuer"] == f"{ISSUER}/t/green"
    async with hub.client(tenant["admin_token"], tenant="green") as green:
        metadata = (await green.get("/.well-known/ssf-configuration")).json()
        keys = (await green.get("/jwks.json")).json()["keys"]
        client = {"name": "wiki", "scopes": ["ssf.manage"]}
        token = (await green.post("/admin/v1/clients", json=client)).json()["token"]
    assert metadata["default_subjects"] == "NONE"
    assert len(keys) == 3
    async with hub.client(token, tenant="green") as wiki:
        stream = (await wiki.post("/ssf/streams", json={})).json()
    assert stream["iss"] == f"{ISSUER}/t/green"
    async with hub.client(tenant["admin_token"]) as stranger:
        assert (await stranger.get("/admin/v1/clients")).status_code == 401
    assert [entry.action for entry in await hub.audit()][-1] == "tenant.create"
    assert tenant["admin_token"] not in repr(await hub.audit())
    assert (await hub.audit("green"))[0].action == "client.create"


async def test_a_suspended_tenant_is_not_there_until_it_is_resumed(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    tenant = await made(hub, admin)
    paths = ("/healthz", "/jwks.json", "/.well-known/ssf-configuration", "/ssf/streams", "/x")
    async with hub.client(tenant["admin_token"], tenant="green") as green:
        assert (await green.get("/healthz")).status_code == 200
        suspended = await admin.patch(f"{TENANTS}/green", json={"status": "suspended"})
        assert suspended.json()["status"] == "suspended"
        await hub.node.feed.refresh()
        answers = [await green.get(path) for path in paths]
        answers.append(await green.post("/receivers/prv_x/events", content=b"x"))
        answers.append(await green.post("/oauth/token", content=b"grant_type=x"))
        assert {answer.status_code for answer in answers} == {404}
        well_known = await admin.get("/.well-known/ssf-configuration/t/green")
        assert well_known.status_code == 404
        resumed = await admin.patch(f"{TENANTS}/green", json={"status": "active"})
        assert resumed.status_code == 200
        await hub.node.feed.refresh()
        assert (await green.get("/healthz")).status_code == 200


async def test_what_a_suspended_tenant_has_to_send_waits_and_is_not_lost(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    await made(hub, admin)
    await hub.node.feed.refresh()
    green, other = await begin(hub, "green"), await begin(hub)
    for story in (green, other):
        assert (await story.push()).status_code == 202
    suspended = await admin.patch(f"{TENANTS}/green", json={"status": "suspended"})
    assert suspended.status_code == 200
    await hub.node.feed.refresh()
    before = len(hub.outside.requests)
    await hub.settle()
    sent_for_other = len(hub.outside.requests) - before
    assert sent_for_other > 0
    hub.clock.advance(3_600)
    await hub.tend()
    await hub.settle()
    assert len(hub.outside.requests) == before + sent_for_other
    await admin.patch(f"{TENANTS}/green", json={"status": "active"})
    await hub.node.feed.refresh()
    await hub.settle()
    # The same story, and so the same requests, an hour later.
    assert len(hub.outside.requests) == before + 2 * sent_for_other
    items = (await green.get("/admin/v1/tasks?limit=100"))["items"]
    assert {one["state"] for one in items} == {"done"}


@ONE_ENGINE
async def test_changes_are_small_exact_and_audited(hub: Hub, admin: httpx2.AsyncClient) -> None:
    before = await made(hub, admin)
    path = f"{TENANTS}/green"
    renamed = await admin.patch(path, json={"name": "Green AG", "default_subjects": "NONE"})
    assert (renamed.json()["name"], renamed.json()["default_subjects"]) == ("Green AG", "NONE")
    assert (await admin.patch(path, json={})).json() == renamed.json()
    old = {"if-match": '"0"'}
    assert (await admin.patch(path, json={"name": "x"}, headers=old)).status_code == 412
    assert (await admin.patch(f"{TENANTS}/blue", json={"name": "x"})).status_code == 404
    assert (await admin.patch(f"{TENANTS}/blue", json={})).status_code == 404
    assert (await admin.get(f"{TENANTS}/blue")).status_code == 404
    assert (await admin.delete(path)).status_code == 405
    root = await admin.patch(f"{TENANTS}/default", json={"status": "suspended"})
    assert root.status_code == 409
    listed = (await admin.get(TENANTS)).json()["items"]
    assert [item["id"] for item in listed] == ["default", "green"]
    assert all("admin_token" not in item for item in listed)
    assert before["created_at"] == listed[1]["created_at"]


@ONE_ENGINE
@pytest.mark.parametrize(
    "body",
    [
        {"name": "x"},
        {"id": "green"},
        {"id": "Green", "name": "x"},
        {"id": "-green", "name": "x"},
        {"id": "g" * 64, "name": "x"},
        {"id": "green\n", "name": ""},
        {"id": "a/b", "name": "x"},
        {"id": "..", "name": "x"},
        {"id": "*", "name": "x"},
        {"id": 1, "name": "x"},
        {"id": "green", "name": "x", "default_subjects": "SOME"},
        {"id": "green", "name": "x", "status": "suspended"},
    ],
)
async def test_an_unfit_tenant_is_refused(admin: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    answer = await admin.post(TENANTS, json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"]


@ONE_ENGINE
async def test_an_id_is_given_once(hub: Hub, admin: httpx2.AsyncClient) -> None:
    await made(hub, admin)
    assert (await admin.post(TENANTS, json=GREEN)).status_code == 409
    assert (await admin.post(TENANTS, json={"id": "default", "name": "x"})).status_code == 409


@ONE_ENGINE
async def test_nobody_but_an_owner_sees_or_makes_tenants(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    await made(hub, admin)
    tokens = {await hub.token(*(SCOPES - {"admin.read", "admin.write"})): 403, "wrong": 401}
    for role in ("viewer", "policy", "admin"):
        body = {"name": role, "role": role}
        answer = await admin.post("/admin/v1/clients", json=body)
        assert answer.status_code == 201, answer.text
        tokens[answer.json()["token"]] = 403
    for token, expected in tokens.items():
        async with hub.client(token) as client:
            answers = [
                await client.get(TENANTS),
                await client.get(f"{TENANTS}/green"),
                await client.post(TENANTS, json={"id": "blue", "name": "x"}),
                await client.patch(f"{TENANTS}/green", json={"status": "suspended"}),
            ]
        assert {answer.status_code for answer in answers} == {expected}
    owner = (await admin.post("/admin/v1/clients", json={"name": "o", "role": "owner"})).json()
    async with hub.client(owner["token"]) as client:
        assert (await client.get(TENANTS)).status_code == 200
        made_too = await client.post(TENANTS, json={"id": "blue", "name": "x"})
        assert made_too.status_code == 201
    owner_of_green = await hub.token(tenant="green")
    async with hub.client(owner_of_green, tenant="green") as green:
        assert (await green.get(TENANTS)).status_code == 404
        assert (await green.post(TENANTS, json={"id": "red", "name": "x"})).status_code == 404


def test_the_command_line_manages_tenants(any_hub_process: Served) -> None:
    shell = any_hub_process.shell
    tenant = shell.good("tenant", "add", "id=made-here", "name=Made here")
    assert tenant["admin_token"]
    assert shell.good("tenant", "change", "made-here", "status=suspended")["status"] == "suspended"
    done = shell.run("client", "list", "--tenant", "made-here")
    assert done.code == 2
    assert shell.good("tenant", "change", "made-here", "status=active")["status"] == "active"
    assert shell.good("client", "list", "--tenant", "made-here", "--json")["items"]
    assert "made-here" in shell.run("tenant", "list").out
    inside = shell.run("tenant", "list", "--tenant", "made-here")
    assert (inside.code, "Not found" in inside.err) == (2, True)
