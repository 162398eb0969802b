"""The audit: every write leaves an entry, entries are chained, secrets stay out."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from hub import store
from hub.admin.routes import KINDS
from hub.admin.writing import masked
from hub.store import NO_HASH, AuditEntry, audit_hash
from runtime.audit import AuditNote
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import begin


def assert_chained(entries: list[AuditEntry]) -> None:
    """Fail unless each entry names the one before it and its own content."""
    previous = NO_HASH
    for number, entry in enumerate(entries, start=1):
        assert entry.number == number
        assert entry.previous_hash == previous
        assert entry.entry_hash == audit_hash(entry)
        previous = entry.entry_hash


async def test_every_admin_write_leaves_a_chained_entry(hub: Hub) -> None:
    story = await begin(hub)
    await story.play()
    admin_id = (await story.get("/admin/v1/clients"))["items"][0]["id"]
    before = len(await hub.audit())
    app = story.ids["crm"]
    await story.admin.patch(f"/admin/v1/apps/{app}", json={"sensitivity": 7})
    await story.admin.put(f"/admin/v1/apps/{app}", json={"name": "crm"})
    await story.admin.delete(f"/admin/v1/apps/{app}")
    await story.post("/admin/v1/policies:preset", {"mode": "monitor"})

    entries = await hub.audit()
    assert_chained(entries)
    assert [(entry.action, entry.ref, entry.actor) for entry in entries[before:]] == [
        ("app.change", app, admin_id),
        ("app.replace", app, admin_id),
        ("app.delete", app, admin_id),
        ("policy.preset", "policies", admin_id),
    ]
    assert entries[before].detail == {"sensitivity": 7}
    assert entries[before].at == hub.clock.now()


async def test_a_level_set_for_a_user_leaves_an_entry_and_a_refused_one_none(hub: Hub) -> None:
    story = await begin(hub)
    before = len(await hub.audit())
    path = "/api/v1/users/email:rosa.lind@customer.example/risk"
    body = {"riskLevel": "MEDIUM", "riskReason": "odd travel"}
    assert (await story.admin.put(path, json=body)).status_code == 201
    unknown = "/api/v1/users/usr_nobody/risk"
    assert (await story.admin.put(unknown, json=body)).status_code == 404
    assert (await story.admin.put(path, json={"riskLevel": "AWFUL"})).status_code == 400

    entries = await hub.audit()
    assert_chained(entries)
    (entry,) = entries[before:]
    assert (entry.action, entry.detail) == ("user.risk", body)
    assert entry.ref == "email:rosa.lind@customer.example"


async def test_numbers_of_any_spelling_keep_the_chain(hub: Hub, admin: httpx2.AsyncClient) -> None:
    jwk = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "n": [1e2, 1e20, 1e-7, 5, True, 2**63]}
    body = b"""{"name": "p", "issuer": "https://p.example", "audiences": ["a"],
        "jwks_uri": "https://p.example/jwks", "subject_scope": {"domains": ["p.example"]}}"""
    json = {"content-type": "application/json"}
    assert (await admin.post("/admin/v1/providers", content=body, headers=json)).status_code == 201
    note = AuditNote(
        tenant_id="default", actor="x", action="x.y", ref="z", detail={"jwk": jwk, "n": 1e2}
    )
    async with hub.database.transaction() as connection:
        await store.add_audit(connection, note, now=hub.clock.now())

    assert_chained(await hub.audit())


@ONE_ENGINE
async def test_a_changed_entry_breaks_the_chain(hub: Hub) -> None:
    await begin(hub)
    async with hub.database.transaction() as connection:
        await connection.execute(
            sa.update(store.audit)
            .where(store.audit.c.tenant_id == "default", store.audit.c.number == 3)
            .values(actor="somebody else")
        )

    with pytest.raises(AssertionError):
        assert_chained(await hub.audit())


@ONE_ENGINE
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/admin/v1/apps", {"name": ""}),
        ("POST", "/admin/v1/apps", {"name": "crm"}),
        ("PATCH", "/admin/v1/apps/app_none", {"name": "x"}),
        ("DELETE", "/admin/v1/apps/app_none", None),
        ("POST", "/admin/v1/tasks/tsk_none/retry", None),
        ("POST", "/admin/v1/policies:preset", {"name": "none"}),
    ],
)
async def test_a_refused_write_leaves_no_entry(
    hub: Hub, method: str, path: str, body: dict[str, Any] | None
) -> None:
    story = await begin(hub)
    before = await hub.audit()
    answer = await story.admin.request(method, path, json=body)

    assert 400 <= answer.status_code < 500
    assert await hub.audit() == before


@ONE_ENGINE
async def test_secrets_are_masked(hub: Hub) -> None:
    story = await begin(hub)
    await story.post(
        "/admin/v1/webhooks",
        {"url": "https://x.example", "secret": "whsec_" + "QUFB" * 8},
    )
    await story.admin.patch(
        f"/admin/v1/providers/{story.ids['provider']}", json={"authorization_header": "Bearer new"}
    )

    told = str([entry.detail for entry in await hub.audit()])
    for secret in ("both-sides", "scim-secret", "Bearer new", "QUFB", *story.tokens.values()):
        assert secret not in told
    assert "***" in told


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"token": "x"}, {"token": "***"}),
        ({"token": None}, {"token": None}),
        ({"a": [{"secret": "x"}]}, {"a": [{"secret": "***"}]}),
        ({"scim": {"token": {"deep": "x"}}}, {"scim": {"token": "***"}}),
        ({"name": "token"}, {"name": "token"}),
    ],
)
def test_masking_looks_at_every_level(document: Any, expected: Any) -> None:
    assert masked(document) == expected


@ONE_ENGINE
async def test_private_keys_of_a_vendor_are_neither_taken_nor_repeated(
    admin: httpx2.AsyncClient, hub: Hub
) -> None:
    from jwcrypto.jwk import JWK  # noqa: PLC0415

    private = JWK.generate(kty="EC", crv="P-256", kid="k", alg="ES256").export(as_dict=True)
    body = {
        "name": "careless",
        "issuer": "https://x.example",
        "audiences": ["a"],
        "jwks": {"keys": [private]},
    }
    answer = await admin.post("/admin/v1/providers", json=body)

    assert private["d"] not in answer.text
    assert private["d"] not in str([entry.detail for entry in await hub.audit()])


@ONE_ENGINE
async def test_the_audit_is_only_read(admin: httpx2.AsyncClient) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = await admin.request(method, "/admin/v1/audit", json={})

        assert answer.status_code == 405
    assert not {kind.name for kind in KINDS if kind.name == "audit" and kind.read}


async def test_writes_at_the_same_moment_make_one_chain(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    import asyncio  # noqa: PLC0415

    answers = await asyncio.gather(
        *(admin.post("/admin/v1/apps", json={"name": f"app {number}"}) for number in range(8))
    )

    assert {answer.status_code for answer in answers} == {201}
    assert_chained(await hub.audit())
    assert len(await hub.audit()) == 8
