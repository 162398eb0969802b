"""Idempotency-Key: a repeat of a POST gets the first answer and does nothing again."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
import sqlalchemy as sa

from hub import store
from tests.hub.conftest import ONE_ENGINE, Hub

DAY_S = 24 * 3600
KEY = {"idempotency-key": "order-17"}
CLIENT = {"name": "payroll", "scopes": ["ssf.read"]}


async def test_a_repeat_gets_the_first_answer_and_does_nothing(
    hub: Hub, admin: httpx2.AsyncClient
) -> None:
    first = await admin.post("/admin/v1/clients", json=CLIENT, headers=KEY)
    again = await admin.post("/admin/v1/clients", json=CLIENT, headers=KEY)

    assert first.status_code == 201
    assert (again.status_code, again.json()) == (201, first.json())
    for name in ("location", "etag", "content-type", "cache-control"):
        assert again.headers[name] == first.headers[name]
    assert first.json()["token"]
    assert len(await hub.audit()) == 1


async def test_the_key_with_another_request_is_a_conflict(admin: httpx2.AsyncClient) -> None:
    await admin.post("/admin/v1/clients", json=CLIENT, headers=KEY)
    other_body = await admin.post(
        "/admin/v1/clients", json={**CLIENT, "name": "other"}, headers=KEY
    )
    other_path = await admin.post("/admin/v1/apps", json={"name": "x"}, headers=KEY)

    assert (other_body.status_code, other_path.status_code) == (409, 409)
    assert (await admin.get("/admin/v1/apps")).json()["items"] == []


async def test_repeats_at_the_same_moment_do_it_once(hub: Hub, admin: httpx2.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(admin.post("/admin/v1/apps", json={"name": "x"}, headers=KEY) for _ in range(6))
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(await hub.audit()) == 1


@ONE_ENGINE
async def test_a_refused_request_is_tried_again(admin: httpx2.AsyncClient) -> None:
    taken = (await admin.post("/admin/v1/apps", json={"name": "x"})).json()
    refused = await admin.post("/admin/v1/apps", json={"name": "x"}, headers=KEY)
    await admin.delete(f"/admin/v1/apps/{taken['id']}")
    again = await admin.post("/admin/v1/apps", json={"name": "x"}, headers=KEY)

    assert (refused.status_code, again.status_code) == (409, 201)


@ONE_ENGINE
async def test_actions_are_repeated_the_same_way(hub: Hub, admin: httpx2.AsyncClient) -> None:
    first = await admin.post("/admin/v1/policies:preset", json={}, headers=KEY)
    again = await admin.post("/admin/v1/policies:preset", json={}, headers=KEY)

    assert first.json() == again.json()
    assert first.json()["version"] == 1
    assert len(await hub.audit()) == 1


async def test_a_key_is_forgotten_after_a_day(hub: Hub, admin: httpx2.AsyncClient) -> None:
    await admin.post("/admin/v1/apps", json={"name": "x"}, headers=KEY)
    hub.clock.advance(DAY_S + 1)
    other = await admin.post("/admin/v1/apps", json={"name": "y"}, headers=KEY)

    assert other.status_code == 201
    async with hub.database.snapshot() as connection:
        kept = await connection.scalar(sa.select(sa.func.count()).select_from(store.kept_answers))
    assert kept == 1


@ONE_ENGINE
async def test_each_client_and_tenant_has_its_own_keys(hub: Hub) -> None:
    await hub.add_tenant("green")
    answers: list[httpx2.Response] = []
    for tenant in ("default", "default", "green"):
        async with hub.client(await hub.token(tenant=tenant), tenant=tenant) as client:
            body = {"name": f"app {len(answers)}"}
            answers.append(await client.post("/admin/v1/apps", json=body, headers=KEY))

    assert {answer.status_code for answer in answers} == {201}


@ONE_ENGINE
async def test_kept_answers_are_sealed(hub: Hub, admin: httpx2.AsyncClient) -> None:
    token = (await admin.post("/admin/v1/clients", json=CLIENT, headers=KEY)).json()["token"]
    async with hub.database.snapshot() as connection:
        rows = (await connection.execute(sa.select(store.kept_answers))).all()

    assert rows
    assert token not in str(rows)


@ONE_ENGINE
@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é", "a\tb"])
async def test_a_key_is_visible_ascii(admin: httpx2.AsyncClient, key: str) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    answer = await admin.post("/admin/v1/apps", json={"name": "x"}, headers=headers)

    assert answer.status_code == 400


@ONE_ENGINE
async def test_two_keys_are_refused(admin: httpx2.AsyncClient) -> None:
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    answer = await admin.post("/admin/v1/apps", json={"name": "x"}, headers=headers)

    assert answer.status_code == 400
