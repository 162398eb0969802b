"""Push intake over HTTP: status, headers and body of every answer, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
from jwcrypto.jwk import JWK
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.errors import render_exception
from receivers.model import Provider, ProviderStatus
from receivers.routes import ROUTES
from runtime.errors import ConnectFailed, Refused, Unavailable
from ssf.jose import SET_BYTES_MAX
from tests.receivers import vendor
from tests.receivers.bad_sets import bad_sets
from tests.receivers.conftest import TENANT, Intake, on_one_engine
from tests.receivers.vendor import JWKSHost, claims, sign

SECEVENT = {"content-type": "application/secevent+jwt"}


class _DefaultTenant:
    """Stands where hub's tenant front stands."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "tenant": TENANT}, receive, send)


@pytest.fixture
async def client(intake: Intake) -> AsyncIterator[httpx2.AsyncClient]:
    app = Starlette(
        routes=ROUTES,
        exception_handlers=dict.fromkeys((HTTPException, Refused, Unavailable), render_exception),
    )
    app.state.receivers = intake.deps
    # The transport passes exceptions on: an answer 500 would fail the test with its cause.
    transport = httpx2.ASGITransport(_DefaultTenant(app))
    async with httpx2.AsyncClient(transport=transport, base_url="https://hub.example") as opened:
        yield opened


def _path(provider: Provider) -> str:
    return f"/receivers/{provider.provider_id}/events"


def _assert_rfc_8935_error(answer: httpx2.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-language"] == "en"
    body = answer.json()
    assert body.keys() == {"err", "description"}
    assert body["err"] == code
    assert body["description"]


@pytest.mark.requirement("PUSH-3", "PUSH-7", "EGW-4")
async def test_a_good_set_is_answered_202_with_an_empty_body(
    client: httpx2.AsyncClient, intake: Intake, rsa: JWK
) -> None:
    provider = await intake.register()

    answer = await client.post(_path(provider), content=sign(claims(), rsa), headers=SECEVENT)

    assert (answer.status_code, answer.content) == (202, b"")
    assert [signal.jti for signal in await intake.stored()] == ["jti-1"]


@pytest.mark.requirement("PUSH-10", "SET-61")
async def test_a_replay_is_answered_as_the_first_time(
    client: httpx2.AsyncClient, intake: Intake, rsa: JWK
) -> None:
    provider = await intake.register()
    raw = sign(claims(), rsa)

    first = await client.post(_path(provider), content=raw, headers=SECEVENT)
    again = await client.post(_path(provider), content=raw, headers=SECEVENT)

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert dict(again.headers) == dict(first.headers)
    assert len(await intake.stored()) == 1


@pytest.mark.requirement("PUSH-12", "PUSH-13", "EGW-37")
async def test_every_bad_set_is_answered_400_with_its_code_and_changes_nothing(
    client: httpx2.AsyncClient, intake: Intake, rsa: JWK, next_rsa: JWK
) -> None:
    provider = await intake.register()

    for raw, code in bad_sets(rsa, next_rsa).values():
        answer = await client.post(_path(provider), content=raw, headers=SECEVENT)
        _assert_rfc_8935_error(answer, 400, code)

    assert await intake.stored() == []


@pytest.mark.requirement("SET-50", "PUSH-5", "PUSH-18", "PUSH-21")
@on_one_engine
async def test_another_authorization_header_is_401_before_the_set_is_looked_at(
    client: httpx2.AsyncClient, intake: Intake, jwks_host: JWKSHost, rsa: JWK
) -> None:
    provider = await intake.register(authorization_header="Bearer abc")

    for given in (None, "", "Bearer abd", "bearer abc", "Bearer  abc", "abc", "Bearer abcé"):
        headers = {b"content-type": b"application/secevent+jwt"}
        if given is not None:
            headers[b"authorization"] = given.encode("latin-1")
        for body in (sign(claims(), rsa), b"no SET at all"):
            answer = await client.post(_path(provider), content=body, headers=headers)
            _assert_rfc_8935_error(answer, 401, "authentication_failed")
            assert answer.headers["www-authenticate"].startswith("Bearer")

    assert jwks_host.requests == []
    assert await intake.stored() == []


@pytest.mark.requirement("PUSH-5", "EGW-31")
@on_one_engine
async def test_the_registered_authorization_value_is_taken_verbatim(
    client: httpx2.AsyncClient, intake: Intake, rsa: JWK
) -> None:
    provider = await intake.register(authorization_header="Vendor-Scheme a=1, b=2")

    answer = await client.post(
        _path(provider),
        content=sign(claims(), rsa),
        headers={**SECEVENT, "authorization": "Vendor-Scheme a=1, b=2"},
    )

    assert answer.status_code == 202


@pytest.mark.requirement("PUSH-14", "PUSH-20")
@on_one_engine
async def test_an_unknown_provider_is_404(
    client: httpx2.AsyncClient, intake: Intake, rsa: JWK
) -> None:
    await intake.register()
    for name in ("mdm", "prv_00000000000000000000000000", "%00", "a%2Fb"):
        answer = await client.post(
            f"/receivers/{name}/events", content=sign(claims(), rsa), headers=SECEVENT
        )
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
    assert await intake.stored() == []


@pytest.mark.requirement("PUSH-14")
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_another_method_is_405(
    client: httpx2.AsyncClient, intake: Intake, method: str
) -> None:
    provider = await intake.register()

    answer = await client.request(method, _path(provider))

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.requirement("PUSH-2", "PUSH-14")
@on_one_engine
async def test_another_content_type_is_415(
    client: httpx2.AsyncClient, intake: Intake, rsa: JWK
) -> None:
    provider = await intake.register()

    for content_type in (None, "", "application/json", "application/jwt", "text/plain"):
        headers = {} if content_type is None else {"content-type": content_type}
        answer = await client.post(_path(provider), content=sign(claims(), rsa), headers=headers)
        assert answer.status_code == 415
        assert answer.headers["accept-post"] == "application/secevent+jwt"

    assert await intake.stored() == []


@on_one_engine
async def test_case_and_parameters_of_the_content_type_do_not_matter(
    client: httpx2.AsyncClient, intake: Intake, rsa: JWK
) -> None:
    provider = await intake.register()
    headers = {"content-type": "Application/SecEvent+JWT; charset=utf-8"}

    answer = await client.post(_path(provider), content=sign(claims(), rsa), headers=headers)

    assert answer.status_code == 202


@pytest.mark.requirement("PUSH-14", "SET-50")
@on_one_engine
async def test_an_oversized_body_is_413_and_read_no_further(
    client: httpx2.AsyncClient, intake: Intake
) -> None:
    provider = await intake.register()
    handed_out = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal handed_out
        while handed_out < 100 * SET_BYTES_MAX:
            handed_out += 16_384
            yield b"x" * 16_384

    announced = await client.post(
        _path(provider), content=b"x" * (SET_BYTES_MAX + 1), headers=SECEVENT
    )
    chunked = await client.post(_path(provider), content=endless(), headers=SECEVENT)

    assert (announced.status_code, chunked.status_code) == (413, 413)
    assert handed_out <= SET_BYTES_MAX + 2 * 16_384
    assert await intake.stored() == []


@pytest.mark.requirement("SET-54", "EGW-82")
@on_one_engine
async def test_unreachable_keys_are_503_with_retry_after(
    client: httpx2.AsyncClient, intake: Intake, jwks_host: JWKSHost, rsa: JWK
) -> None:
    provider = await intake.register()
    jwks_host.failure = ConnectFailed("refused")

    answer = await client.post(_path(provider), content=sign(claims(), rsa), headers=SECEVENT)

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert await intake.stored() == []


@pytest.mark.requirement("SET-54")
@on_one_engine
async def test_a_kid_nobody_publishes_is_400_invalid_key(
    client: httpx2.AsyncClient, intake: Intake, next_rsa: JWK
) -> None:
    provider = await intake.register()

    answer = await client.post(_path(provider), content=sign(claims(), next_rsa), headers=SECEVENT)

    _assert_rfc_8935_error(answer, 400, "invalid_key")


@pytest.mark.requirement("PUSH-35")
@on_one_engine
async def test_an_inactive_provider_is_answered_400_access_denied(
    client: httpx2.AsyncClient, intake: Intake, rsa: JWK
) -> None:
    provider = await intake.register(status=ProviderStatus.INACTIVE)

    answer = await client.post(_path(provider), content=sign(claims(), rsa), headers=SECEVENT)

    _assert_rfc_8935_error(answer, 400, "access_denied")
    assert await intake.stored() == []


@on_one_engine
async def test_a_sender_that_goes_away_in_the_middle_causes_no_fault(
    client: httpx2.AsyncClient, intake: Intake
) -> None:
    provider = await intake.register()
    sent: list[int] = []
    messages: list[Message] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"eyJ", "more_body": True},
    ]

    async def receive() -> Message:
        return messages.pop()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            sent.append(int(str(message["status"])))

    transport = client._transport
    assert isinstance(transport, httpx2.ASGITransport)
    scope = {
        "type": "http",
        "method": "POST",
        "path": _path(provider),
        "query_string": b"",
        "headers": [(b"content-type", b"application/secevent+jwt")],
    }
    await transport.app(scope, receive, send)

    assert sent == [400]
    assert await intake.stored() == []


async def test_a_new_provider_is_known_at_once_although_others_are_in_memory(
    client: httpx2.AsyncClient, intake: Intake, rsa: JWK
) -> None:
    first = await intake.register(name="first")
    await client.post(_path(first), content=sign(claims(), rsa), headers=SECEVENT)
    second = await intake.register(name="second", issuer="https://second.example")

    answer = await client.post(
        _path(second),
        content=sign(claims(iss="https://second.example", jti="jti-2"), rsa),
        headers=SECEVENT,
    )

    assert answer.status_code == 202
    assert {signal.iss for signal in await intake.stored()} == {
        vendor.ISSUER,
        "https://second.example",
    }
