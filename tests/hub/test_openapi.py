"""The OpenAPI document: valid, complete, and true to the route table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx2
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.routing import Route

from hub.admin.openapi import document
from hub.auth import SCOPES
from tests.hub.conftest import ISSUER, ONE_ENGINE, Hub

#: answered like GET, without a body, by every server of HTTP
IMPLIED_METHODS = {"HEAD"}


def routed(app: Any) -> Iterator[tuple[str, str]]:
    """Yield method and path of every route of an application, however it is wrapped."""
    while not isinstance(app, Starlette):
        app = next(
            inner for inner in vars(app).values() if callable(inner) and hasattr(inner, "__dict__")
        )
    for route in app.routes:
        assert isinstance(route, Route)
        if not route.include_in_schema:
            # It only says that this method is none of the path's.
            continue
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        # A route without methods takes all of them; the document says GET.
        for method in (route.methods or {"GET"}) - IMPLIED_METHODS:
            yield method, path


def described() -> set[tuple[str, str]]:
    return {
        (method.upper(), path)
        for path, operations in document()["paths"].items()
        for method in operations
    }


@ONE_ENGINE
async def test_every_route_is_described_and_nothing_else(hub: Hub) -> None:
    assert set(routed(hub.app)) == described()


@ONE_ENGINE
async def test_the_served_document_is_valid_and_public(hub: Hub) -> None:
    async with hub.client() as client:
        answer = await client.get("/openapi.json")

    assert answer.status_code == 200
    assert answer.json()["openapi"] == "3.1.0"
    assert answer.json()["servers"] == [{"url": ISSUER}]
    validate(answer.json())


@ONE_ENGINE
async def test_a_tenants_document_names_its_own_address(hub: Hub) -> None:
    await hub.add_tenant("green")
    async with hub.client(tenant="green") as client:
        answer = await client.get("/openapi.json")

    assert answer.json()["servers"] == [{"url": f"{ISSUER}/t/green"}]


def test_operation_ids_are_unique() -> None:
    found = [
        operation["operationId"]
        for operations in document()["paths"].values()
        for operation in operations.values()
    ]

    assert len(set(found)) == len(found)


def test_every_scope_in_the_document_exists() -> None:
    named = {
        scope
        for operations in document()["paths"].values()
        for operation in operations.values()
        for requirement in operation.get("security", [])
        for scope in requirement["bearer"]
    }

    assert named <= SCOPES


@ONE_ENGINE
async def test_what_is_described_as_secured_asks_for_a_token(hub: Hub) -> None:
    async with hub.client() as client:
        for path, operations in document()["paths"].items():
            for method, operation in operations.items():
                if method == "post" and path.startswith("/receivers/"):
                    continue
                answer = await client.request(method, re.sub(r"\{\w+\}", "x", path), json={})

                # Gateways would take 401 for "sign in": they are refused otherwise (FWA-21).
                refused = 403 if path.startswith("/v1/forward-auth") else 401
                asked = answer.status_code == refused
                assert asked == ("security" in operation), f"{method} {path}: {answer.status_code}"


@ONE_ENGINE
async def test_the_documented_scopes_are_the_ones_that_open_an_operation(hub: Hub) -> None:
    clients: dict[str, httpx2.AsyncClient] = {
        scope: hub.client(await hub.token(scope)) for scope in SCOPES
    }
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            # Gateways get 403 for whatever they do wrong (test_forward_auth.py).
            if "security" not in operation or path.startswith("/v1/forward-auth"):
                continue
            allowed = set(operation["security"][0]["bearer"])
            # Who may write may read as well.
            allowed |= {"admin.write"} if "admin.read" in allowed else set()
            for scope, client in clients.items():
                answer = await client.request(method, re.sub(r"\{\w+\}", "x", path), json={})

                opened = answer.status_code != 403
                assert opened == (scope in allowed), f"{method} {path} with {scope}"
    for client in clients.values():
        await client.aclose()
