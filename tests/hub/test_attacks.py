"""Attacks on every endpoint: whatever is sent, the answer is a refusal, never a failure."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hub.admin.openapi import document
from hub.admin.routes import KINDS
from tests.hub.commands import LIMIT_S, Served
from tests.hub.conftest import ALL_SCOPES, ONE_ENGINE, Hub
from tests.hub.story import HUB_AUDIENCE, begin, sign

#: answers in the form gateways understand, to any method: attacked in test_forward_auth.py
GATEWAYS = "/v1/forward-auth"
OPERATIONS = [
    (method.upper(), path)
    for path, operations in document()["paths"].items()
    for method in operations
    if not path.startswith(GATEWAYS)
]
JSON = {"content-type": "application/json"}
#: per operation and engine
EXAMPLES = 10
#: each request there starts a process; its body has one member
SLOW = {"/admin/v1/feeds:compile": 4}
#: the engine that takes fewer values than the other
STRICT_ENGINE = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
LONG = "x" * 10_000
#: other methods there reach the session whose id is `x/evaluate`, or `x/step-ups/x`
BELOW_A_NAME = {
    "/v1/sessions/{sid}/evaluate",
    "/v1/sessions/{sid}/step-ups/{step_up_id}",
}
NASTY = (
    "%00",
    "a%00b",
    LONG,
    "%ff%fe",
    "%ed%a0%80",
    "..%2f..%2fetc%2fpasswd",
    "..",
    "%2e%2e",
    "%0d%0aset-cookie:%20a=b",
    "'%20OR%20'1'='1",
    "%F0%9F%92%A5",
    "%E2%80%AE",
    ";",
    "|",
    "usr_" + "0" * 26,
    "email:",
    "iss_sub:|",
    "ext:",
    "*",
    "%25",
    "%",
    "-1",
    "9" * 400,
)


def filled(path: str, value: str) -> str:
    return re.sub(r"\{\w+\}", value, path)


def assert_refused(answer: httpx2.Response, told: str) -> None:
    """Fail when the answer is a failure of ours, or breaks the form of refusals."""
    assert answer.status_code < 500, f"{told}: {answer.text}"
    if answer.status_code >= 400 and told.startswith("POST /oauth/"):
        # RFC 6749 §5.2 prescribes the body.
        assert answer.headers["content-type"] == "application/json", told
        assert set(answer.json()) == {"error", "error_description"}, told
    elif answer.status_code in {400, 401, 403, 404, 405} and " /access/" in told:
        # AuthZEN §10.1.2 prescribes a string.
        assert answer.headers["content-type"] == "text/plain; charset=utf-8", told
        assert answer.text.count("\n") == 1, told
    elif answer.status_code >= 400 and not told.startswith("POST /receivers/"):
        assert answer.headers["content-type"] == "application/problem+json", told
        assert answer.json()["status"] == answer.status_code
        assert len(answer.content) < 4_000, told
    assert "set-cookie" not in answer.headers


@pytest.fixture
async def clients(hub: Hub) -> AsyncIterator[dict[str, httpx2.AsyncClient]]:
    """Yield clients: one without a token, one of another tenant, one with each single scope."""
    await hub.add_tenant("green")
    opened = {
        "nobody": hub.client(),
        "a stranger": hub.client(await hub.token(tenant="green")),
        **{scope: hub.client(await hub.token(scope)) for scope in ALL_SCOPES},
    }
    yield opened
    for client in opened.values():
        await client.aclose()


# --- who asks -----------------------------------------------------------------------------------


@ONE_ENGINE
@pytest.mark.requirement("INT-29", "OA-3", "PD-7")
async def test_every_operation_asks_for_exactly_its_scopes(
    clients: dict[str, httpx2.AsyncClient],
) -> None:
    for method, path in OPERATIONS:
        operation = document()["paths"][path][method.lower()]
        secured = "security" in operation
        allowed = set(operation["security"][0]["bearer"]) if secured else set(ALL_SCOPES)
        allowed |= {"admin.write"} if "admin.read" in allowed else set()
        for name, client in clients.items():
            answer = await client.request(method, filled(path, "x"), json={})
            told = f"{method} {path} as {name}"
            assert_refused(answer, told)
            if not secured:
                assert answer.status_code not in {401, 403}, told
            elif name in {"nobody", "a stranger"}:
                assert answer.status_code == 401, told
                assert ("error=" in answer.headers["www-authenticate"]) == (name != "nobody")
            else:
                assert (answer.status_code == 403) == (name not in allowed), told


@ONE_ENGINE
async def test_unknown_methods_are_not_allowed_anywhere(
    clients: dict[str, httpx2.AsyncClient],
) -> None:
    known: dict[str, set[str]] = {}
    for method, path in OPERATIONS:
        known.setdefault(path, set()).add(method)
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE", "X")
    for path, allowed in known.items():
        if path in BELOW_A_NAME:
            continue
        implied = allowed | ({"HEAD"} if "GET" in allowed else set())
        for method in methods:
            if method in implied:
                continue
            answer = await clients["nobody"].request(method, filled(path, "x"))
            assert answer.status_code == 405, f"{method} {path}"
            assert set(answer.headers["allow"].split(", ")) == implied, f"{method} {path}"


@ONE_ENGINE
async def test_head_and_options_are_harmless(hub: Hub) -> None:
    story = await begin(hub)
    before = await hub.audit()
    for method, path in OPERATIONS:
        if method == "GET":
            address = filled(path, story.ids["rosa"])
            answer = await story.admin.head(address)
            assert answer.status_code == (await story.admin.get(address)).status_code
        assert (await story.admin.options(filled(path, "x"))).status_code == 405

    assert await hub.audit() == before


# --- addresses ----------------------------------------------------------------------------------


@STRICT_ENGINE
@pytest.mark.long
async def test_nasty_ids_are_refused_everywhere(hub: Hub, admin: httpx2.AsyncClient) -> None:
    for method, path in OPERATIONS:
        if "{" not in path:
            continue
        for value in NASTY:
            # Addresses that name nothing must not be mended into ones that do.
            answer = await admin.request(method, filled(path, value), json=_body(method, path))
            assert_refused(answer, f"{method} {path} with {value[:20]}")

    assert await _names(admin) == set()


@STRICT_ENGINE
async def test_nasty_queries_are_refused_everywhere(admin: httpx2.AsyncClient) -> None:
    for method, path in OPERATIONS:
        parameters = document()["paths"][path][method.lower()].get("parameters", ())
        for name in [each["name"] for each in parameters if each["in"] == "query"]:
            for value in NASTY:
                answer = await admin.request(method, f"{filled(path, 'x')}?{name}={value}")
                assert_refused(answer, f"{method} {path}?{name}={value[:20]}")


@ONE_ENGINE
async def test_repeated_and_empty_parameters_are_answered(admin: httpx2.AsyncClient) -> None:
    for query in ("limit=1&limit=2", "limit", "=", "&&&", "cursor=&limit=1", "a" * 5_000, "%", "?"):
        for path in ("/admin/v1/users", "/v1/risk/users", "/v1/detections", "/ssf/streams"):
            assert_refused(await admin.get(f"{path}?{query}"), f"GET {path}?{query[:20]}")


# --- headers ------------------------------------------------------------------------------------


@ONE_ENGINE
async def test_nothing_of_a_request_comes_back_in_headers(hub: Hub) -> None:
    token = await hub.token()
    nasty = b"x\r\nset-cookie: a=b"
    async with hub.client() as client:
        for name in (
            b"x-request-id",
            b"authorization",
            b"if-match",
            b"idempotency-key",
            b"content-type",
            b"host",
            b"x-forwarded-for",
            b"x-forwarded-host",
            b"forwarded",
            b"accept",
            b"origin",
        ):
            for value in (nasty, b"\xff\xfe", b"", LONG.encode(), b"\x00", b'"'):
                headers = [(b"authorization", f"Bearer {token}".encode())]
                headers = [pair for pair in headers if pair[0] != name] + [(name, value)]
                for method, path in (("GET", "/admin/v1/apps"), ("POST", "/admin/v1/apps")):
                    answer = await client.request(method, path, headers=headers)
                    assert_refused(answer, f"{name!r}: {value[:20]!r}")
                    assert "a=b" not in str(answer.headers)
                    assert LONG not in str(answer.headers)


@ONE_ENGINE
async def test_a_forged_host_changes_no_address(hub: Hub) -> None:
    async with hub.client(await hub.token()) as client:
        forged = {"host": "evil.example", "x-forwarded-host": "evil.example"}
        for path in ("/.well-known/ssf-configuration", "/openapi.json", "/admin/v1/providers"):
            assert "evil" not in (await client.get(path, headers=forged)).text
        made = await client.post("/admin/v1/apps", json={"name": "x"}, headers=forged)

    assert "evil" not in made.headers["location"]


# --- bodies -------------------------------------------------------------------------------------

BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b"0",
    b'""',
    b"{}",
    b"\xff\xfe{}",
    b'{"a":"\\u0000"}',
    b'{"a":"\\ud800"}',
    b'{"a":1,"a":2}',
    b'{"\\u0000":1}',
    b'{"":{"":[]}}',
    b"[" * 50_000,
    b'{"a":' * 50_000,
    b'{"a":' + b"9" * 5_000 + b"}",
    b'{"a":1e999}',
    b'{"a":-0.0}',
    b"NaN",
    b"\x00",
    b'{"a":"' + b"x" * 200_000 + b'"}',
    b"[" + b"{}," * 10_000 + b"{}]",
    b"\xef\xbb\xbf{}",
)


async def test_broken_bodies_are_refused_everywhere(hub: Hub) -> None:
    story = await begin(hub)
    before = await hub.audit()
    for method, path in OPERATIONS:
        if method not in {"POST", "PUT", "PATCH"} or path in TAKES_ANYTHING:
            continue
        for body in BODIES:
            address = filled(path, "x")
            answer = await story.admin.request(method, address, content=body, headers=JSON)
            assert_refused(answer, f"{method} {path} with {body[:20]!r}")
            if body not in OBJECTS:
                assert answer.status_code >= 400, f"{method} {path} with {body[:20]!r}"

    # An object whose members nobody knows is a fine request for a stream.
    assert [entry for entry in await hub.audit() if entry.action != "stream.create"] == [
        entry for entry in before if entry.action != "stream.create"
    ]


#: those of BODIES that are JSON objects with members nobody knows, which SSF ignores
OBJECTS = {body for body in BODIES if body[:1] == b"{" and body[-1:] == b"}"} - {
    b'{"a":"\\u0000"}',
    b'{"a":"\\ud800"}',
    b'{"a":1,"a":2}',
    b'{"\\u0000":1}',
    b'{"a":1e999}',
}
#: all members of a preset and of a compilation have defaults, an export has no body
TAKES_ANYTHING = {
    "/admin/v1/policies:sweeps",
    "/admin/v1/policies:preset",
    "/admin/v1/mappings:export",
    "/admin/v1/ingest-errors:summary",
    "/admin/v1/ingest-errors:replay-all",
    "/admin/v1/feeds:compile",
}

_WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    1.5,
    "",
    " ",
    "\x00",
    "\ud800",
    LONG,
    [],
    [[]],
    {},
    {"a": {"b": []}},
    "é" * 300,
    "\u202e",
    "javascript:alert(1)",
    "https://user:pass@x.example/#f",
    "http://[::1",
    "https://x.example:99999",
    "//x",
    "file:///etc/passwd",
)


@pytest.mark.long
async def test_wrong_values_in_any_member_are_refused_everywhere(hub: Hub) -> None:
    story = await begin(hub)
    import json  # noqa: PLC0415

    for method, path, body in _examples():
        for place in _places(body):
            for wrong in _WRONG:
                changed = json.dumps(_with(body, place, wrong)).encode("utf-8", "surrogatepass")
                answer = await story.admin.request(
                    method, filled(path, story.ids["rosa"]), content=changed, headers=JSON
                )
                assert_refused(answer, f"{method} {path} {place} {str(wrong)[:20]!r}")
    # Whatever was taken can be shown and works on.
    for kind in KINDS:
        await story.get(f"/admin/v1/{kind.name}")
    await story.play()


def _examples() -> Iterator[tuple[str, str, Any]]:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {})
            example = content.get("application/json", {}).get("example")
            if example is not None:
                yield method, path, example


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _places(inner, (*place, name))
    elif isinstance(value, list) and value:
        yield from _places(value[0], (*place, 0))


def _with(value: Any, place: tuple[Any, ...], wrong: Any) -> Any:
    if not place:
        return wrong
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[place[0]] = _with(value[place[0]], place[1:], wrong)
    return copied


# --- validly signed, and wrong ------------------------------------------------------------------


async def test_signed_nonsense_is_refused_or_set_aside_and_stops_nobody(hub: Hub) -> None:
    story = await begin(hub)
    good = story.claims()
    (event_type,) = good["events"]
    payload = good["events"][event_type]
    wrong: list[Any] = [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"iss":"a","iss":"b"}',
        b"[" * 20_000,
        *({**good, name: value} for name in good for value in _WRONG if value != "\ud800"),
        *(
            {**good, "events": {event_type: {**payload, name: value}}}
            for name in (*payload, "initiating_entity", "reason_admin", "extra")
            for value in _WRONG
            if value != "\ud800"
        ),
        *({**good, "events": {uri: {}}} for uri in ("", "x", LONG, "urn:x", event_type + "\x00")),
        {**good, "events": {event_type: payload, "urn:x:y": {}}},
        {**good, "sub_id": {"format": "aliases", "identifiers": [{"format": "aliases"}]}},
        {**good, "sub_id": {"format": "email", "email": "x@" + "y" * 2_000}},
        {**good, "sub_id": {"format": "opaque", "id": "é" * 2_000}},
        {**good, "sub_id": {"format": "complex"}},
        {**good, "jti": "x" * 2_000},
        {**good, "txn": "é" * 2_000},
        {**good, "iat": good["iat"] + 86_400},
        {**good, "aud": [HUB_AUDIENCE] * 1_000},
    ]
    for number, claims in enumerate(wrong):
        if isinstance(claims, dict) and claims.get("jti") == good["jti"]:
            claims["jti"] = f"jti-{number}"
        answer = await story.push_raw(sign(claims))
        assert answer.status_code in {202, 400, 413}, f"{claims}: {answer.text}"
    await hub.settle()
    await story.play()

    (containment,) = (await story.get("/admin/v1/containments?state=open"))["items"]
    assert containment["user_id"] == story.ids["rosa"]
    assert (await story.get("/admin/v1/signals?state=received"))["items"] == []


# --- generated from the document ----------------------------------------------------------------

_SCHEMA = schemathesis.openapi.from_dict(
    {**document(), "servers": [{"url": "https://hub.example"}]}
)


def _cases(method: str, path: str) -> st.SearchStrategy[Any]:
    strategy: st.SearchStrategy[Any] = _SCHEMA[path][method.lower()].as_strategy()
    return strategy


#: an answer has a status, a content type and a body that the document names
CONFORMANCE = [status_code_conformance, content_type_conformance, response_schema_conformance]
#: SETs have generators of their own, which know how to sign
GENERATED = [pair for pair in OPERATIONS if not pair[1].startswith("/receivers/")]


@pytest.mark.parametrize(("method", "path"), GENERATED)
def test_whatever_the_document_allows_is_answered(
    hub_process: Served, postgresql_hub_process: Served, method: str, path: str
) -> None:
    """Both engines are asked the same: cases cost more to think up than to answer."""
    with ExitStack() as opened:
        hubs = [
            (hub.issuer, opened.enter_context(httpx2.Client(headers=_bearer(hub), timeout=LIMIT_S)))
            for hub in (hub_process, postgresql_hub_process)
        ]

        @settings(
            max_examples=SLOW.get(path, EXAMPLES),
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=_cases(method, path))
        def ask(case: Any) -> None:
            for issuer, client in hubs:
                wanted = case.as_transport_kwargs(base_url=issuer)
                headers = {
                    name: value
                    for name, value in wanted["headers"].items()
                    if name.lower() not in {"authorization", "user-agent"}
                }
                prepared = requests.Request(**{**wanted, "headers": headers}).prepare()
                assert prepared.body is None or isinstance(prepared.body, str | bytes)
                named = {name: str(value) for name, value in prepared.headers.items()}
                answer = client.request(
                    method, str(prepared.url), headers=named, content=prepared.body
                )
                assert_refused(answer, f"{method} {path} of {issuer}")
                case.validate_response(answer, checks=CONFORMANCE)

        ask()


def _bearer(hub: Served) -> dict[str, str]:
    return {"authorization": f"Bearer {hub.token}"}


# --- raw bytes on a real socket -----------------------------------------------------------------


def exchange(issuer: str, raw: bytes) -> bytes:
    """Send bytes to a served hub and return what comes back, until it closes or falls silent."""
    address = urlsplit(issuer)
    received = b""
    place = (address.hostname or "", address.port or 0)
    # A server may hang up on what is too large to be meant.
    with socket.create_connection(place, timeout=5) as link, suppress(ConnectionError, OSError):
        link.sendall(raw)
        link.shutdown(socket.SHUT_WR)
        while piece := link.recv(65_536):
            received += piece
    return received


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
        b"GET /admin/v1/apps/%ff%fe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /t/%00/x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://evil.example/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET //evil.example/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: [\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /ssf/streams HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /ssf/streams HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /ssf/streams HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"BREW /coffee HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100,
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_raw_nonsense_on_the_wire_is_survived(hub_process: Served, raw: bytes) -> None:
    received = exchange(hub_process.issuer, raw)

    assert b" 500 " not in received.split(b"\r\n")[0]
    assert b"Traceback" not in received
    assert b"evil" not in received
    assert httpx2.get(f"{hub_process.issuer}/readyz", timeout=LIMIT_S).status_code == 200


async def _names(admin: httpx2.AsyncClient) -> set[str]:
    """Return the names of all apps and providers."""
    items = [
        *(await admin.get("/admin/v1/apps")).json()["items"],
        *(await admin.get("/admin/v1/providers")).json()["items"],
    ]
    return {item["name"] for item in items}


def _body(method: str, path: str) -> Any:
    content = document()["paths"][path][method.lower()].get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("example")
