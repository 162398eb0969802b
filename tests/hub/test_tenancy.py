"""Tenants in the URL, and what a tenant may see of another: nothing."""

from __future__ import annotations

import httpx2
import pytest

from hub.tenancy import split_tenant, tenant_issuer
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub


@pytest.mark.parametrize(
    ("path", "tenant", "rest"),
    [
        ("/ssf/streams", "default", "/ssf/streams"),
        ("/", "default", "/"),
        ("/t", "default", "/t"),
        ("/t/", "default", "/t/"),
        ("/t/green", "green", "/"),
        ("/t/green/", "green", "/"),
        ("/t/green/ssf/streams", "green", "/ssf/streams"),
        ("/t/green/t/blue/ssf/streams", "green", "/t/blue/ssf/streams"),
        ("/t//ssf/streams", "default", "/t//ssf/streams"),
        ("/.well-known/ssf-configuration", "default", "/.well-known/ssf-configuration"),
        ("/.well-known/ssf-configuration/t/green", "green", "/.well-known/ssf-configuration"),
        ("/.well-known/ssf-configuration/t/green/x", "green", "/.well-known/ssf-configuration/x"),
        ("/.well-known/x/y/t/green", "default", "/.well-known/x/y/t/green"),
        ("/t/default/ssf/streams", "", "/ssf/streams"),
        ("/.well-known/ssf-configuration/t/default", "", "/.well-known/ssf-configuration"),
    ],
)
def test_the_tenant_is_taken_off_the_path(path: str, tenant: str, rest: str) -> None:
    assert split_tenant(path) == (tenant, rest)


def test_each_tenant_has_an_issuer_of_its_own() -> None:
    assert tenant_issuer(ISSUER, "default") == ISSUER
    assert tenant_issuer(ISSUER, "green") == f"{ISSUER}/t/green"


@ONE_ENGINE
@pytest.mark.requirement("SSF-META-20")
async def test_a_tenant_is_served_at_both_of_its_addresses(hub: Hub) -> None:
    await hub.add_tenant("green")
    async with hub.client() as client:
        metadata = await client.get("/.well-known/ssf-configuration/t/green")
        keys = await client.get("/t/green/jwks.json")

    assert metadata.json()["issuer"] == f"{ISSUER}/t/green"
    assert metadata.json()["configuration_endpoint"] == f"{ISSUER}/t/green/ssf/streams"
    assert keys.json() == {"keys": []}


@ONE_ENGINE
@pytest.mark.requirement("PD-7")
@pytest.mark.parametrize(
    "tenant", ["nobody", "default", "GREEN", "-", "a_b", "%2e%2e", "a" * 64, "é", "green%00", "*"]
)
@pytest.mark.parametrize("form", ["/t/{}/healthz", "/.well-known/ssf-configuration/t/{}"])
async def test_an_unknown_tenant_is_answered_like_an_unknown_path(
    hub: Hub, tenant: str, form: str
) -> None:
    await hub.add_tenant("green")
    async with hub.client() as client:
        answer = await client.get(form.format(tenant))
        nowhere = await client.get("/nowhere")

    assert answer.status_code == 404
    assert _without_instance(answer) == _without_instance(nowhere)


@ONE_ENGINE
async def test_a_suspended_tenant_is_answered_like_an_unknown_one(hub: Hub) -> None:
    await hub.add_tenant("green")
    async with hub.client(tenant="green") as client:
        assert (await client.get("/healthz")).status_code == 200

        await hub.add_tenant("green", status="suspended")

        assert (await client.get("/healthz")).status_code == 404


@ONE_ENGINE
@pytest.mark.requirement("PD-5", "PD-7")
async def test_an_unknown_tenants_stream_errors_have_the_form_of_stream_errors(hub: Hub) -> None:
    async with hub.client(tenant="nobody") as client:
        answer = await client.get("/ssf/streams")

    assert answer.status_code == 404
    assert answer.json()["err"] == "not_found"


@ONE_ENGINE
async def test_a_token_is_worth_nothing_at_another_tenant(hub: Hub) -> None:
    await hub.add_tenant("green")
    at_default, at_green = await hub.token(), await hub.token(tenant="green")
    async with hub.client(at_default, tenant="green") as client:
        assert (await client.get("/admin/v1/users")).status_code == 401
    async with hub.client(at_green) as client:
        assert (await client.get("/admin/v1/users")).status_code == 401
    async with hub.client(at_green, tenant="green") as client:
        assert (await client.get("/admin/v1/users")).status_code == 200


def _without_instance(answer: httpx2.Response) -> dict[str, object]:
    body: dict[str, object] = answer.json()
    del body["instance"]
    return body
