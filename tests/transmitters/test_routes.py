"""The HTTP surface: status codes, headers, order of checks, metadata, keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import httpx2
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from runtime.caller import Caller
from runtime.errors import Forbidden, NotFound, Refused, TooManyRequests, Unauthorized
from ssf.errors import SharedSignalsError
from ssf.metadata import metadata_url, parse_metadata
from tests.transmitters.conftest import (
    CREDENTIAL_CHANGE,
    ISSUER,
    ONE_ENGINE,
    PAYROLL,
    SESSION_REVOKED,
    TENANT,
    World,
    event,
)
from transmitters.model import MIN_VERIFICATION_INTERVAL_S
from transmitters.routes import ROUTES
from transmitters.subjects.model import CHANGES_AT_ONCE

pytestmark = [pytest.mark.anyio, ONE_ENGINE]

POLL_CREATE = {"events_requested": [SESSION_REVOKED]}
PUSH_CREATE = {
    "delivery": {
        "method": "urn:ietf:rfc:8935",
        "endpoint_url": "https://payroll.green.example/hooks/ssf/7f3a",
        "authorization_header": "Bearer 9c2e-push-secret",
    },
    "events_requested": [SESSION_REVOKED, CREDENTIAL_CHANGE, "https://vendor.example/unknown"],
    "description": "payroll production",
}


SUBJECT_OF_NOBODY = msgspec.json.encode(
    {"stream_id": "str_1", "subject": {"format": "email", "email": "rosa@green.example"}}
)


class Nobody(Caller):
    """A request without a token."""

    @override
    def require(self, *_scopes: str) -> None:
        raise Unauthorized("An access token is needed.")


class Callers:
    """Stands in for the hub's front: tokens are names of scopes, tenants are in a header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            token = headers.get(b"authorization", b"").decode()
            tenant = headers.get(b"x-tenant", TENANT.encode()).decode()
            client_id, _, scopes = token.partition(" ")
            kind = Caller if token else Nobody
            caller = kind(
                tenant_id=tenant,
                client_id=client_id,
                scopes=frozenset(scopes.split()),
                app_id=None,
            )

            async def again() -> Caller:
                return caller

            state = {"caller": caller, "caller_again": again}
            scope = {**scope, "tenant": tenant, "state": state}
        await self._app(scope, receive, send)


async def refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"detail": error.detail}, status_code=error.status)


async def broken(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SharedSignalsError)
    content = {"err": error.code, "description": error.description}
    return JSONResponse(content, status_code=error.status_hint)


@pytest.fixture
def application(world: World) -> Starlette:
    application = Starlette(
        routes=list(ROUTES),
        exception_handlers={
            Unauthorized: refused,
            Forbidden: refused,
            NotFound: refused,
            TooManyRequests: refused,
            SharedSignalsError: broken,
        },
    )
    application.state.transmitters = world.deps
    return application


@pytest.fixture
async def http(application: Starlette) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(Callers(application))
    async with httpx2.AsyncClient(transport=transport, base_url=ISSUER) as client:
        yield client


def bearer(
    client_id: str = PAYROLL.client_id, scopes: str = "ssf.read ssf.manage"
) -> dict[str, str]:
    return {"authorization": f"{client_id} {scopes}"}


async def create(http: httpx2.AsyncClient, body: Mapping[str, Any] = POLL_CREATE) -> dict[str, Any]:
    answer = await http.post("/ssf/streams", json=body, headers=bearer())
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


@pytest.mark.requirement(
    "SSF-META-1", "SSF-META-2", "SSF-META-3", "SSF-META-4", "SSF-META-5", "SSF-META-6"
)
@pytest.mark.requirement("SSF-META-10", "SSF-META-21", "SSF-META-22", "EGW-2", "EGW-3", "INT-9")
@pytest.mark.parametrize(("tenant", "base"), [(TENANT, ISSUER), ("blue", f"{ISSUER}/t/blue")])
async def test_metadata_names_what_this_transmitter_answers_and_nothing_else(
    http: httpx2.AsyncClient, tenant: str, base: str
) -> None:
    answer = await http.get("/.well-known/ssf-configuration", headers={"x-tenant": tenant})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"].startswith("public, max-age=")
    assert answer.json() == {
        "spec_version": "1_0",
        "issuer": base,
        "jwks_uri": f"{base}/jwks.json",
        "delivery_methods_supported": ["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"],
        "configuration_endpoint": f"{base}/ssf/streams",
        "status_endpoint": f"{base}/ssf/status",
        "add_subject_endpoint": f"{base}/ssf/subjects:add",
        "remove_subject_endpoint": f"{base}/ssf/subjects:remove",
        "verification_endpoint": f"{base}/ssf/verify",
        "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6749"}],
        "default_subjects": "ALL",
    }
    assert parse_metadata(answer.content, base).issuer == base
    assert metadata_url(ISSUER) == f"{ISSUER}/.well-known/ssf-configuration"


@pytest.mark.requirement("SET-35", "INT-5")
async def test_the_jwks_holds_public_keys_only(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/jwks.json")
    assert answer.status_code == 200
    (key,) = answer.json()["keys"]
    assert set(key) == {"kty", "kid", "use", "alg", "n", "e"}
    assert (key["kid"], key["use"], key["alg"]) == ("set-1", "sig", "RS256")


@pytest.mark.requirement("SSF-OP-1", "SSF-DEL-7", "SSF-CFG-1", "SSF-CFG-3", "SSF-CFG-5", "INT-10")
async def test_a_push_stream_is_created_with_its_whole_configuration(
    http: httpx2.AsyncClient,
) -> None:
    answer = await http.post("/ssf/streams", json=PUSH_CREATE, headers=bearer())
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    created = answer.json()
    stream_id = created.pop("stream_id")
    supported = created.pop("events_supported")
    assert stream_id.startswith("str_")
    assert SESSION_REVOKED in supported
    assert created == {
        "iss": ISSUER,
        "aud": PAYROLL.client_id,
        "delivery": {
            "method": "urn:ietf:rfc:8935",
            "endpoint_url": "https://payroll.green.example/hooks/ssf/7f3a",
        },
        "events_requested": PUSH_CREATE["events_requested"],
        "events_delivered": [SESSION_REVOKED, CREDENTIAL_CHANGE],
        "description": "payroll production",
        "min_verification_interval": MIN_VERIFICATION_INTERVAL_S,
    }
    assert "9c2e" not in answer.text


@pytest.mark.requirement("SSF-CFG-5", "EGW-18")
async def test_values_of_events_requested_that_name_nothing_fail_no_stream(
    http: httpx2.AsyncClient,
) -> None:
    wanted = [SESSION_REVOKED, "session-revoked", "*", "https://a.example/ü", "a b\n"]
    made = await http.post("/ssf/streams", json={"events_requested": wanted}, headers=bearer())
    assert made.status_code == 201, made.text
    stream = {"stream_id": made.json()["stream_id"]}
    for method in ("PATCH", "PUT"):
        body = stream | {"events_requested": wanted}
        changed = await http.request(method, "/ssf/streams", json=body, headers=bearer())
        assert changed.status_code == 200, changed.text
    read = (await http.get("/ssf/streams", params=stream, headers=bearer())).json()
    assert read["events_requested"] == wanted
    assert read["events_delivered"] == [SESSION_REVOKED]


@pytest.mark.requirement("SSF-OP-10", "SSF-OP-11", "EGW-7")
async def test_streams_are_read_one_as_an_object_and_all_as_an_array(
    http: httpx2.AsyncClient,
) -> None:
    none = await http.get("/ssf/streams", headers=bearer())
    assert (none.status_code, none.json()) == (200, [])
    created = await create(http)
    one = await http.get(
        "/ssf/streams", params={"stream_id": created["stream_id"]}, headers=bearer()
    )
    assert (one.status_code, one.json()) == (200, created)
    all_of_them = await http.get("/ssf/streams", headers=bearer(scopes="ssf.read"))
    assert all_of_them.json() == [created]


@pytest.mark.requirement("SSF-OP-40", "EGW-9", "EGW-12")
async def test_a_stream_is_deleted_once(http: httpx2.AsyncClient) -> None:
    params = {"stream_id": (await create(http))["stream_id"]}
    first = await http.delete("/ssf/streams", params=params, headers=bearer())
    second = await http.delete("/ssf/streams", params=params, headers=bearer())
    assert (first.status_code, first.content) == (204, b"")
    assert second.status_code == 404
    read = await http.get("/ssf/streams", params=params, headers=bearer())
    assert read.status_code == 404


@pytest.mark.requirement("SSF-STAT-1", "SSF-STAT-2")
async def test_the_status_of_a_stream_is_read_with_its_reason(
    http: httpx2.AsyncClient, world: World
) -> None:
    params = {"stream_id": (await create(http))["stream_id"]}
    answer = await http.get("/ssf/status", params=params, headers=bearer())
    assert answer.json() == {**params, "status": "enabled"}
    await world.set_stream(params["stream_id"], status="paused", reason="maintenance")
    answer = await http.get("/ssf/status", params=params, headers=bearer(scopes="ssf.read"))
    assert answer.json() == {**params, "status": "paused", "reason": "maintenance"}


@pytest.mark.requirement(
    "SSF-OP-20", "SSF-OP-30", "SSF-STAT-7", "SSF-STAT-8", "SSF-STAT-13", "EGW-12", "EGW-55"
)
async def test_a_stream_is_updated_replaced_paused_and_enabled_over_http(
    http: httpx2.AsyncClient,
) -> None:
    created = await create(http)
    stream_id = {"stream_id": created["stream_id"]}
    patched = await http.patch(
        "/ssf/streams", json={**stream_id, "description": "d"}, headers=bearer()
    )
    assert (patched.status_code, patched.json()) == (200, {**created, "description": "d"})
    replaced = await http.put("/ssf/streams", json=stream_id, headers=bearer())
    assert replaced.json() == {**created, "events_requested": [], "events_delivered": []}
    for status in ("paused", "disabled", "enabled"):
        body = {**stream_id, "status": status, "reason": "because"}
        answer = await http.post("/ssf/status", json=body, params=stream_id, headers=bearer())
        assert (answer.status_code, answer.json()) == (200, body)
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.requirement("SSF-SUBJ-1", "SSF-SUBJ-3", "SSF-VER-1", "EGW-5", "EGW-6")
async def test_subjects_and_verification_answer_as_the_standard_has_it(
    http: httpx2.AsyncClient,
) -> None:
    stream_id = {"stream_id": (await create(http))["stream_id"]}
    subject = {"format": "iss_sub", "iss": "https://login.green.example", "sub": "u-1"}
    for path, body, status in (
        ("/ssf/subjects:add", {**stream_id, "subject": subject, "verified": False}, 200),
        ("/ssf/subjects:remove", {**stream_id, "subject": subject}, 204),
        ("/ssf/verify", {**stream_id, "state": "x"}, 204),
    ):
        answer = await http.post(path, json=body, headers=bearer())
        assert (answer.status_code, answer.content) == (status, b""), path
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.requirement("SSF-SEC-1")
async def test_who_probes_for_people_waits_and_nobody_else_does(
    http: httpx2.AsyncClient, world: World
) -> None:
    stream_id = {"stream_id": (await create(http))["stream_id"]}

    async def ask(path: str, number: int, headers: dict[str, str]) -> httpx2.Response:
        subject = {"format": "email", "email": f"somebody-{number}@green.example"}
        return await http.post(path, json={**stream_id, "subject": subject}, headers=headers)

    assert (await ask("/ssf/subjects:add", 0, bearer())).status_code == 200
    # All that is left at once but one is used up, as by so many requests.
    now_s = world.clock.now().timestamp()
    name = f"{TENANT} {PAYROLL.client_id}"
    assert not world.deps.subject_rates.take(name, now_s, cost=CHANGES_AT_ONCE - 2)
    assert (await ask("/ssf/subjects:remove", 0, bearer())).status_code == 204
    for path in ("/ssf/subjects:add", "/ssf/subjects:remove"):
        assert (await ask(path, 1, bearer())).status_code == 429
        # Another client asks at its own rate; that the stream is not its own is all it learns.
        assert (await ask(path, 1, bearer("cli_other"))).status_code == 404
    world.clock.advance(1)
    assert (await ask("/ssf/subjects:add", 1, bearer())).status_code == 200


@pytest.mark.requirement("SSF-OP-52", "SSF-OP-3", "SSF-AUTH-1", "SSF-STAT-10")
@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("PUT", "/ssf/status", {}, b"", 405),
        ("GET", "/ssf/subjects:add", {}, b"", 405),
        ("DELETE", "/ssf/subjects:remove", {}, b"", 405),
        ("GET", "/ssf/verify", {}, b"", 405),
        *(
            (method, path, headers, content, status)
            for method, path, meaningless in (
                ("PATCH", "/ssf/streams", b'{"stream_id": "str_1", "iss": "https://else"}'),
                ("PUT", "/ssf/streams", b'{"stream_id": "str_1", "iss": "https://else"}'),
                ("POST", "/ssf/status", b'{"stream_id": "str_1", "status": "enabled"}'),
                ("POST", "/ssf/subjects:add", SUBJECT_OF_NOBODY),
                ("POST", "/ssf/subjects:remove", SUBJECT_OF_NOBODY),
                ("POST", "/ssf/verify", b'{"stream_id": "str_1"}'),
            )
            for headers, content, status in (
                ({}, b"{broken", 401),
                (bearer(scopes="ssf.read"), b"{broken", 403),
                (bearer(), b"{broken", 400),
                (bearer(), b"[]", 400),
                (bearer(), b"{}", 400),
                (bearer(), b'{"stream_id": 7}', 400),
                (bearer(), b'{"stream_id": "a", "stream_id": "b"}', 400),
                (bearer(), meaningless, 404),
            )
        ),
        ("POST", "/ssf/status", bearer(), b'{"stream_id": "str_1", "status": "Paused"}', 400),
        (
            "POST",
            "/ssf/status?stream_id=str_2",
            bearer(),
            b'{"stream_id": "str_1", "status": "paused"}',
            404,
        ),
        ("GET", "/ssf/poll/str_1", {}, b"", 405),
        ("POST", "/ssf/streams", {}, b"{broken", 401),
        ("POST", "/ssf/streams", bearer(scopes="ssf.read"), b"{broken", 403),
        ("POST", "/ssf/streams", bearer(), b"{broken", 400),
        ("POST", "/ssf/streams", bearer(), b"[]", 400),
        ("POST", "/ssf/streams", bearer(), b'{"delivery": {"method": "urn:x"}}', 400),
        ("POST", "/ssf/streams", bearer(), b'{"iss": "https://else.example"}', 400),
        ("GET", "/ssf/streams", {}, b"", 401),
        ("GET", "/ssf/streams?stream_id=str_1", {}, b"", 401),
        ("GET", "/ssf/streams", bearer(scopes="ssf.manage.poll"), b"", 403),
        ("GET", "/ssf/streams?stream_id=str_1", bearer(), b"", 404),
        ("DELETE", "/ssf/streams", {}, b"", 401),
        ("DELETE", "/ssf/streams", bearer(scopes="ssf.read"), b"", 403),
        ("DELETE", "/ssf/streams", bearer(), b"", 400),
        ("DELETE", "/ssf/streams?stream_id=str_1", bearer(), b"", 404),
        ("GET", "/ssf/status", {}, b"", 401),
        ("GET", "/ssf/status", bearer(), b"", 400),
        ("GET", "/ssf/status?stream_id=str_1", bearer(), b"", 404),
        ("POST", "/ssf/poll/str_1", {}, b"{broken", 401),
        ("POST", "/ssf/poll/str_1", bearer(scopes="risk.read"), b"{broken", 403),
        ("POST", "/ssf/poll/str_1", bearer(), b"{broken", 400),
        ("POST", "/ssf/poll/str_1", bearer(), b"{}", 404),
    ],
)
async def test_checks_come_in_order_method_token_scope_body_stream_meaning(
    http: httpx2.AsyncClient,
    method: str,
    path: str,
    headers: dict[str, str],
    content: bytes,
    status: int,
) -> None:
    answer = await http.request(
        method, path, headers={"content-type": "application/json", **headers}, content=content
    )
    assert answer.status_code == status
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.requirement("SSF-DEL-6", "SSF-DEL-8", "SSF-OP-4")
@pytest.mark.parametrize(
    "delivery",
    [
        {},
        {"endpoint_url": "ftp://payroll.example/ssf"},
        {"endpoint_url": "https://user:pass@payroll.example/ssf"},
        {"endpoint_url": "https://payroll.example/ssf#here"},
        {"endpoint_url": "https://payroll.example/a\r\nX-Injected: 1"},
        {"endpoint_url": "https://payroll.example", "authorization_header": "a\r\nX-Injected: 1"},
        {"endpoint_url": "https://payroll.example", "authorization_header": "a\x00b"},
        {"endpoint_url": "https://payroll.example", "authorization_header": "snow ☃"},
        {"endpoint_url": "https://payroll.example", "authorization_header": "x" * 5000},
    ],
)
async def test_an_endpoint_or_header_that_could_do_harm_is_refused(
    http: httpx2.AsyncClient, delivery: dict[str, str]
) -> None:
    body = {"delivery": {"method": "urn:ietf:rfc:8935", **delivery}}
    answer = await http.post("/ssf/streams", json=body, headers=bearer())
    assert answer.status_code == 400
    assert (await http.get("/ssf/streams", headers=bearer())).json() == []


@pytest.mark.requirement("SSF-DEL-6")
async def test_http_endpoints_need_the_development_switch(
    http: httpx2.AsyncClient, application: Starlette, world: World
) -> None:
    body = {
        "delivery": {"method": "urn:ietf:rfc:8935", "endpoint_url": "http://payroll.example/ssf"}
    }
    assert (await http.post("/ssf/streams", json=body, headers=bearer())).status_code == 201
    application.state.transmitters = replace(world.deps, allow_http=False)
    assert (await http.post("/ssf/streams", json=body, headers=bearer())).status_code == 400


@pytest.mark.requirement("SSF-OP-54", "POLL-24")
async def test_only_json_of_bounded_size_is_read(http: httpx2.AsyncClient) -> None:
    stream_id = (await create(http))["stream_id"]
    for path, status in (("/ssf/streams", 400), (f"/ssf/poll/{stream_id}", 415)):
        form = await http.post(path, content=b"a=b", headers=bearer())
        assert form.status_code == status
        large = await http.post(path, content=b" " * 3_000_000, headers=bearer())
        assert large.status_code == 413
        charset = {"content-type": "application/json; charset=utf-8", **bearer()}
        body = b'{"returnImmediately": true}'
        assert (await http.post(path, content=body, headers=charset)).status_code in {200, 201}


@pytest.mark.requirement("POLL-1", "POLL-3", "POLL-8", "POLL-10", "INT-25", "SSF-AUTH-3")
async def test_a_poll_over_http_hands_out_takes_acknowledgements_and_ends_empty(
    http: httpx2.AsyncClient, world: World
) -> None:
    created = await create(http)
    (one,) = await world.publish(event())
    headers = bearer(scopes="ssf.manage.poll")
    url = created["delivery"]["endpoint_url"]
    first = await http.post(url, json={"returnImmediately": True}, headers=headers)
    assert first.status_code == 200
    assert first.headers["content-type"] == "application/json"
    sets = first.json()["sets"]
    assert list(sets) == [one.jti]
    await world.opened(sets[one.jti])
    again = {"returnImmediately": True, "ack": [one.jti]}
    second = await http.post(url, json=again, headers=headers)
    assert second.json() == {"sets": {}}


@pytest.mark.requirement("POLL-24")
@pytest.mark.parametrize(
    "body",
    [{"maxEvents": -1}, {"maxEvents": "5"}, {"ack": "x"}, {"ack": [1]}, {"setErrs": []}],
)
async def test_a_poll_with_members_of_the_wrong_type_is_refused(
    http: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    url = (await create(http))["delivery"]["endpoint_url"]
    assert (await http.post(url, json=body, headers=bearer())).status_code == 400


@pytest.mark.requirement("POLL-24")
async def test_an_empty_poll_request_is_a_poll_with_all_defaults(
    http: httpx2.AsyncClient, world: World
) -> None:
    url = (await create(http))["delivery"]["endpoint_url"]
    (one,) = await world.publish(event())
    answer = await http.post(url, headers=bearer())
    assert list(answer.json()["sets"]) == [one.jti]


@pytest.mark.requirement("SSF-AUTH-2", "PD-7")
async def test_foreign_and_unknown_streams_answer_alike(http: httpx2.AsyncClient) -> None:
    created = await create(http)
    stranger = bearer("cli_stranger")
    for method, path in (
        ("GET", "/ssf/streams?stream_id="),
        ("DELETE", "/ssf/streams?stream_id="),
        ("GET", "/ssf/status?stream_id="),
        ("POST", "/ssf/poll/"),
    ):
        answers = [
            await http.request(
                method, path + stream_id, headers={**stranger, "content-type": "application/json"}
            )
            for stream_id in (created["stream_id"], "str_unknown")
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].content == answers[1].content
    assert msgspec.json.decode((await http.get("/ssf/streams", headers=bearer())).content)


@pytest.mark.requirement("SSF-STAT-8", "SSF-OP-52")
async def test_query_and_body_that_name_different_streams_are_refused(
    http: httpx2.AsyncClient,
) -> None:
    stream_id = (await create(http))["stream_id"]
    body = {"stream_id": stream_id, "status": "paused"}
    for named, status in (("str_2", 400), (stream_id, 200)):
        answer = await http.post(
            "/ssf/status", json=body, params={"stream_id": named}, headers=bearer()
        )
        assert answer.status_code == status, answer.text
        # To a stranger it is a stream that is not there, whatever the query says.
        foreign = await http.post(
            "/ssf/status", json=body, params={"stream_id": named}, headers=bearer("cli_wiki")
        )
        assert foreign.status_code == 404
