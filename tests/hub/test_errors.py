"""Errors on the wire: problem details everywhere, nothing told that must stay inside."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import httpx2
import pytest
import sqlalchemy.exc
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from hub.errors import SLUGS, ErrorBoundary, response_of
from runtime.errors import Conflict, Forbidden, Invalid, NotFound, Overloaded, Refused, Unauthorized
from ssf.errors import LocalProtocolError, StreamError
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.story import begin

MEMBERS = {"type", "title", "status", "detail", "instance"}
SECRET = "Bearer hush-hush"


def scope(path: str = "/admin/v1/apps", **headers: str) -> Scope:
    pairs = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, value in headers.items()
    ]
    return {"type": "http", "method": "GET", "path": path, "headers": pairs}


async def answer_to(error: Exception, path: str = "/x", **headers: str) -> httpx2.Response:
    """Return what an application that fails with `error` answers over HTTP."""

    async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    transport = httpx2.ASGITransport(ErrorBoundary(failing))
    async with httpx2.AsyncClient(transport=transport, base_url="https://hub.example") as client:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.get(path, headers=named)


@pytest.mark.requirement("PD-1", "PD-2", "PD-4")
@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (Invalid("No."), 400, "invalid-request"),
        (Unauthorized("No."), 401, "unauthorized"),
        (Forbidden("No.", scope="risk.read"), 403, "forbidden"),
        (NotFound("No."), 404, "not-found"),
        (HTTPException(405), 405, "method-not-allowed"),
        (Conflict("No."), 409, "conflict"),
        (HTTPException(413), 413, "too-large"),
        (HTTPException(415), 415, "unsupported-media-type"),
        (RuntimeError(SECRET), 500, "internal"),
        (LocalProtocolError("broken", SECRET), 500, "internal"),
        (Overloaded("Full."), 503, "unavailable"),
        (HTTPException(418), 418, "invalid-request"),
    ],
)
async def test_every_error_is_a_problem_document(error: Exception, status: int, slug: str) -> None:
    answer = await answer_to(error)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == MEMBERS
    assert body["status"] == status
    assert body["type"].endswith(f"/problems/{slug}")
    assert body["title"]
    assert SECRET not in answer.text


@pytest.mark.requirement("PD-5", "SSF-OP-53")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StreamError("invalid_request", "No.", requirement="SSF-OP-4"), "invalid_request"),
        (Unauthorized("No."), "authentication_failed"),
        (Forbidden("No."), "access_denied"),
        (NotFound("No."), "not_found"),
        (HTTPException(405), "invalid_request"),
        (Conflict("No."), "conflict"),
        (RuntimeError(SECRET), "internal"),
    ],
)
async def test_stream_errors_also_have_err_and_description(error: Exception, code: str) -> None:
    body = (await answer_to(error, "/ssf/streams")).json()

    assert body.keys() == MEMBERS | {"err", "description"}
    assert body["err"] == code
    assert body["description"] == body["detail"]


@pytest.mark.requirement("PD-6")
async def test_where_a_standard_has_its_own_errors_they_are_no_problem_documents(
    hub: Hub,
) -> None:
    story = await begin(hub)
    pushed = await story.push_raw(b"no SET")
    async with hub.client() as http:
        token = await http.post("/oauth/token", data={"grant_type": "password"})
        streams = await http.get("/ssf/streams")

    assert (pushed.status_code, pushed.json().keys()) == (400, {"err", "description"})
    assert token.json().keys() == {"error", "error_description"}
    for answer in (pushed, token):
        assert answer.headers["content-type"] == "application/json"
    assert streams.status_code == 401
    assert streams.headers["content-type"] == "application/problem+json"
    assert streams.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.requirement("PD-2")
async def test_the_instance_is_the_requests_id_where_that_is_a_uuid() -> None:
    given = str(uuid.uuid5(uuid.NAMESPACE_URL, "x"))
    answer = await answer_to(NotFound("No."), x_request_id=given)

    assert answer.json()["instance"] == f"urn:uuid:{given}"
    assert answer.headers["x-request-id"] == given


@pytest.mark.requirement("PD-2")
@pytest.mark.parametrize("given", ["", "7", "x" * 5000, 'a"b', "a\tb"])
async def test_another_request_id_is_not_repeated(given: str) -> None:
    answer = await answer_to(NotFound("No."), x_request_id=given)

    instance = answer.json()["instance"].removeprefix("urn:uuid:")
    assert str(uuid.UUID(instance)) == instance == answer.headers["x-request-id"]


@pytest.mark.requirement("PD-3")
def test_pointers_and_parameters_are_told_apart() -> None:
    answer = response_of(Invalid("No.", pointers=(("/a/0", "bad"), ("limit", "bad"))), scope())

    assert b'"errors":[{"pointer":"/a/0","detail":"bad"},{"parameter":"limit"' in answer.body


@pytest.mark.requirement("PD-3")
def test_at_most_twenty_pointers_are_named() -> None:
    many = tuple((f"/{number}", "bad") for number in range(100))

    assert len(Invalid("No.", pointers=many).pointers) == 20


@pytest.mark.requirement("PD-3")
def test_unavailable_says_when_to_come_back() -> None:
    answer = response_of(Overloaded("Full.", retry_after_s=0.2), scope())

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "error",
    [
        sqlalchemy.exc.OperationalError("INSERT secret", {}, Exception("locked")),
        sqlalchemy.exc.InterfaceError("INSERT secret", {}, Exception("gone")),
        sqlalchemy.exc.TimeoutError("pool"),
        ConnectionRefusedError(),
        TimeoutError(),
    ],
)
def test_a_database_out_of_reach_is_unavailable_not_broken(error: Exception) -> None:
    answer = response_of(error, scope())

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert b"secret" not in answer.body


def test_a_value_the_database_cannot_hold_is_the_callers_mistake() -> None:
    error = sqlalchemy.exc.DataError("INSERT secret", {}, Exception("too long"))
    answer = response_of(error, scope())

    assert answer.status_code == 400
    assert b"secret" not in answer.body


def test_our_own_texts_of_http_errors_are_kept_and_the_libraries_are_not() -> None:
    own = response_of(HTTPException(415, "Send application/json."), scope())
    librarys = response_of(HTTPException(405, headers={"Allow": "GET"}), scope())

    assert b"Send application/json." in own.body
    assert b"Method not allowed." in librarys.body
    assert librarys.headers["allow"] == "GET"


def test_a_body_that_ends_early_is_no_fault_of_ours() -> None:
    assert response_of(ClientDisconnect(), scope()).status_code == 400


async def test_an_error_after_the_answer_began_is_not_answered_twice() -> None:
    async def half_way(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("half").__call__(scope, receive, send)
        raise RuntimeError

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    with pytest.raises(RuntimeError):
        await ErrorBoundary(half_way)(scope(), receive, send)
    assert [message["type"] for message in sent].count("http.response.start") == 1


def test_every_documented_status_has_a_slug_of_its_own() -> None:
    assert len(set(SLUGS.values())) == len(SLUGS)


@pytest.fixture
async def stranger(hub: Hub) -> AsyncIterator[httpx2.AsyncClient]:
    async with hub.client() as client:
        yield client


@ONE_ENGINE
@pytest.mark.requirement("PD-1", "PD-3")
async def test_the_application_answers_in_this_form(stranger: httpx2.AsyncClient) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("GET", "/admin/v1/apps", 401),
        ("POST", "/healthz", 405),
        ("GET", "/ssf/streams/", 404),
        ("POST", "/receivers/prv_none/events", 404),
    ):
        answer = await stranger.request(method, path)

        assert answer.status_code == status, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json().keys() >= MEMBERS
        assert ("allow" in answer.headers) == (status == 405)
        assert ("www-authenticate" in answer.headers) == (status == 401)


@ONE_ENGINE
async def test_a_broken_host_header_is_answered(stranger: httpx2.AsyncClient) -> None:
    for host in ("[", "a b", "hub.example:99999999", "é", ""):
        answer = await stranger.get("/nowhere", headers=[(b"host", host.encode("latin-1"))])

        assert answer.status_code == 404


def test_a_refusal_of_any_kind_has_its_own_status() -> None:
    class Gone(Refused):
        status = 410

    assert response_of(Gone("It was here."), scope()).status_code == 410
