"""Admin roles: each may do what the one before may, and nothing gives more than it has."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from hub.admin.roles import ROLE_SCOPES, ROLES, may_write
from hub.admin.routes import KINDS
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import begin

TENANT_ADMINS = ("admin", "owner")


async def add(hub: Hub, admin: httpx2.AsyncClient, role: str, **more: Any) -> str:
    """Make an admin of this role; return its token."""
    made = await admin.post("/admin/v1/clients", json={"name": role, "role": role, **more})
    assert made.status_code == 201, made.text
    assert made.json()["role"] == role
    assert set(made.json()["scopes"]) == ROLE_SCOPES[role]
    await hub.node.feed.refresh()
    token: str = made.json()["token"]
    return token


@ONE_ENGINE
async def test_each_role_writes_what_it_is_for_and_reads_all(hub: Hub) -> None:
    story = await begin(hub)
    await story.play()
    containment = (await story.get("/admin/v1/containments"))["items"][0]["id"]
    held = await story.hold_logout()
    policy = (await story.get("/admin/v1/policies"))["items"][0]["id"]
    writes: tuple[tuple[str, str, dict[str, Any], tuple[str, ...]], ...] = (
        ("PUT", f"/api/v1/users/{story.ids['rosa']}/risk", {"riskLevel": "LOW"}, ROLES[1:]),
        ("POST", f"/admin/v1/containments/{containment}/approve", {}, ROLES[2:]),
        ("POST", f"/admin/v1/containments/{containment}/release", {}, ROLES[2:]),
        ("POST", f"/admin/v1/session-logouts/{held}/refuse", {}, ROLES[2:]),
        ("PATCH", f"/admin/v1/policies/{policy}", {}, ROLES[3:]),
        ("POST", "/admin/v1/streams/str_none/replay", {}, ROLES[2:]),
        ("POST", "/admin/v1/providers/prv_none/quarantine", {}, ROLES[2:]),
        ("POST", "/admin/v1/signals:requeue", {}, ROLES[2:]),
        ("POST", "/admin/v1/relays", {}, ROLES[3:]),
        ("DELETE", "/admin/v1/streams/str_none", {}, TENANT_ADMINS),
        ("PATCH", "/admin/v1/providers/prv_none", {}, TENANT_ADMINS),
        ("POST", "/admin/v1/keys:prepare", {"purpose": "nonsense"}, TENANT_ADMINS),
        ("DELETE", "/admin/v1/clients/cli_none", {}, TENANT_ADMINS),
        ("POST", "/admin/v1/apps", {}, TENANT_ADMINS),
    )
    for role in ROLES:
        async with hub.client(await add(hub, story.admin, role)) as client:
            for kind in KINDS:
                assert (await client.get(f"/admin/v1/{kind.name}")).status_code == 200
            for method, path, body, allowed in writes:
                answer = await client.request(method, path, json=body)
                assert (answer.status_code != 403) == (role in allowed), (role, path)


@ONE_ENGINE
async def test_nobody_gives_more_than_he_has(hub: Hub) -> None:
    async with hub.client(await hub.token()) as root:
        async with hub.client(await add(hub, root, "admin")) as admin:
            for body in (
                {"name": "x", "role": "owner"},
                {"name": "x", "scopes": ["admin.write"]},
                {"name": "x", "scopes": ["admin.read", "admin.write"], "role": "owner"},
            ):
                assert (await admin.post("/admin/v1/clients", json=body)).status_code == 403
            for body in ({"name": "y", "role": "policy"}, {"name": "z", "scopes": ["ssf.read"]}):
                made = await admin.post("/admin/v1/clients", json=body)
                assert made.status_code == 201, made.text
            for client in (await admin.get("/admin/v1/clients")).json()["items"]:
                path = f"/admin/v1/clients/{client['id']}"
                for change in ({"role": "owner"}, {"scopes": ["admin.write"], "role": None}):
                    assert (await admin.patch(path, json=change)).status_code == 403
                if "admin.write" in client["scopes"] and client["role"] is None:
                    # Made without a role, and above every one: not his to change or delete.
                    assert (await admin.patch(path, json={"name": "mine"})).status_code == 403
                    assert (await admin.delete(path)).status_code == 403
        for body in (
            {"name": "x", "role": "viewer", "scopes": ["admin.write"]},
            {"name": "x", "role": "analyst", "scopes": ["admin.read", "admin.write"]},
            {"name": "x", "role": "king"},
            {"name": "x"},
        ):
            assert (await root.post("/admin/v1/clients", json=body)).status_code == 400, body


@ONE_ENGINE
async def test_a_role_that_was_lowered_is_lower_at_once(hub: Hub) -> None:
    async with hub.client(await hub.token()) as root:
        token = await add(hub, root, "admin")
        (own,) = [
            client
            for client in (await root.get("/admin/v1/clients")).json()["items"]
            if client["role"] == "admin"
        ]
        async with hub.client(token) as admin:
            assert (await admin.post("/admin/v1/keys:prepare", json={})).status_code == 400
            change = {"role": "viewer", "scopes": ["admin.read"]}
            lowered = await root.patch(f"/admin/v1/clients/{own['id']}", json=change)
            assert lowered.status_code == 200, lowered.text
            await hub.node.feed.refresh()
            assert (await admin.post("/admin/v1/keys:prepare", json={})).status_code == 403
            assert (await admin.get("/admin/v1/keys")).status_code == 200


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_roles_ascend_and_an_unknown_one_writes_nothing(kind: str) -> None:
    allowed = [may_write(role, kind) for role in ROLES]
    assert allowed == sorted(allowed)
    assert allowed[-1]
    assert not may_write("king", kind)
    assert not may_write("admin", "tenants")
