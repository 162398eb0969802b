"""What a request may carry: body sizes, announced or chunked, and no NUL in an address."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from hub.limits import BODY_BYTES_MAX
from ssf.jose import SET_BYTES_MAX
from tests.hub.conftest import ONE_ENGINE, Hub

pytestmark = ONE_ENGINE
JSON = {"content-type": "application/json"}


async def chunks(total_bytes: int) -> AsyncIterator[bytes]:
    sent = 0
    while sent < total_bytes:
        yield b" " * 65_536
        sent += 65_536


@pytest.mark.requirement("PD-4")
@pytest.mark.parametrize("path", ["/admin/v1/apps", "/ssf/streams", "/ssf/poll/str_x"])
async def test_a_large_body_is_refused_announced_or_chunked(
    admin: httpx2.AsyncClient, path: str
) -> None:
    announced = await admin.post(path, content=b" " * (10 * BODY_BYTES_MAX), headers=JSON)
    chunked = await admin.post(path, content=chunks(10 * BODY_BYTES_MAX), headers=JSON)

    assert (announced.status_code, chunked.status_code) == (413, 413)
    assert announced.headers["content-type"] == "application/problem+json"


async def test_an_announced_large_body_is_refused_without_reading_it(
    admin: httpx2.AsyncClient,
) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(3):
            read += 1
            yield b" "

    length = {"content-length": str(BODY_BYTES_MAX + 1)}
    answer = await admin.put("/v1/sessions/s-1", content=body(), headers={**JSON, **length})

    assert (answer.status_code, read) == (413, 0)


async def test_a_body_at_the_limit_is_read(admin: httpx2.AsyncClient) -> None:
    body = b'{"name": "x"' + b" " * (BODY_BYTES_MAX - 13) + b"}"
    answer = await admin.post("/admin/v1/apps", content=body, headers=JSON)

    assert len(body) == BODY_BYTES_MAX
    assert answer.status_code == 201


@pytest.mark.requirement("SET-50")
async def test_a_set_has_a_tighter_limit(hub: Hub, admin: httpx2.AsyncClient) -> None:
    provider = {
        "name": "x",
        "issuer": "https://x.example",
        "audiences": ["y"],
        "jwks_uri": "https://x.example/jwks",
    }
    made = (await admin.post("/admin/v1/providers", json=provider)).json()
    async with hub.client() as vendor:
        answer = await vendor.post(
            made["events_url"],
            content=b"x" * (SET_BYTES_MAX + 1),
            headers={"content-type": "application/secevent+jwt"},
        )

    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/admin/v1/apps/app_%00",
        "/v1/sessions/%00?iss=x",
        "/v1/risk/users/email:a%00@b.example",
        "/admin/v1/apps?cursor=%00",
        "/v1/detections?user=%00",
        "/ssf/streams?stream_id=str_%00",
        "/t/%00/healthz",
    ],
)
async def test_nul_in_an_address_is_refused(admin: httpx2.AsyncClient, path: str) -> None:
    answer = await admin.get(path)

    assert answer.status_code in {400, 404}
