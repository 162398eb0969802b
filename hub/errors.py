"""Errors become HTTP here and nowhere else.

Problem details (RFC 9457) by default; endpoints under `/ssf/` add `err` and `description` (PD-5).
The text never holds keys, tokens, subjects or traces.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
import sqlalchemy.exc
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.oauth.resources import metadata_url
from runtime import ids
from runtime.deadlocks import was_undone
from runtime.errors import Forbidden, Refused, TooManyRequests, Unauthorized, Unavailable
from ssf.errors import LocalProtocolError, SharedSignalsError

PROBLEM_TYPE_BASE: Final = "https://signalhub.dev/problems/"
PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
UUID_URN: Final = "urn:uuid:"
#: errors below it are plain text, but for those of our own that AuthZEN does not name
AUTHZEN_PREFIX: Final = "/access/"
FORWARD_AUTH_PREFIX: Final = "/v1/forward-auth"
FORBIDDEN: Final = 403
TOO_MANY: Final = 429
AUTHZEN_PROBLEMS: Final = frozenset({413, 429})
_VISIBLE_ASCII: Final = re.compile(r"[!-~]{1,200}")
BAD_REQUEST: Final = 400
INTERNAL_ERROR: Final = 500
UNAVAILABLE: Final = 503
RETRY_AFTER_S: Final = 5.0
BUSY_RETRY_AFTER_S: Final = 1.0
SLUGS: Final = {
    400: "invalid-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    409: "conflict",
    410: "gone",
    412: "precondition-failed",
    413: "too-large",
    415: "unsupported-media-type",
    422: "unprocessable",
    429: "rate-limited",
    500: "internal",
    503: "unavailable",
}
TITLES: Final = {
    400: "Invalid request",
    401: "Authentication needed",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Gone",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not processable",
    429: "Too many requests",
    500: "Internal error",
    503: "Temporarily unavailable",
}
SSF_CODES: Final = {
    400: "invalid_request",
    401: "authentication_failed",
    403: "access_denied",
    404: "not_found",
    405: "invalid_request",
    409: "conflict",
    413: "invalid_request",
    415: "invalid_request",
    429: "too_many_requests",
}

#: how a database that is locked, overloaded, restarting or gone shows itself
_OUTAGES: Final = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,
    ConnectionError,
    TimeoutError,
)

log = structlog.get_logger()


def problem_response(
    scope: Scope,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    pointers: tuple[tuple[str, str], ...] = (),
) -> Response:
    """Return a problem+json answer to a request. Source: RFC 9457; requirements PD-1 to PD-5."""
    if scope["path"].startswith(FORWARD_AUTH_PREFIX):
        return _gateway_response(status)
    if scope["path"].startswith(AUTHZEN_PREFIX) and status not in AUTHZEN_PROBLEMS:
        return _plain_response(scope, status, detail, headers or {})
    slug = SLUGS.get(status, "invalid-request" if status < INTERNAL_ERROR else "internal")
    instance = _instance(scope)
    body: dict[str, Any] = {
        "type": PROBLEM_TYPE_BASE + slug,
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "instance": instance,
    }
    if pointers:
        body["errors"] = [
            {"pointer" if name.startswith("/") else "parameter": name, "detail": text}
            for name, text in pointers
        ]
    if scope["path"].startswith("/ssf/"):
        body |= {"err": SSF_CODES.get(status, "internal"), "description": detail}
    request_id = instance.removeprefix(UUID_URN)
    if scope["path"].startswith(AUTHZEN_PREFIX):
        request_id = request_id_of(scope) or request_id
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type=PROBLEM_MEDIA_TYPE,
        headers={"cache-control": "no-store", "x-request-id": request_id, **(headers or {})},
    )


def request_id_of(scope: Scope) -> str | None:
    """Return the id that an AuthZEN answer repeats: the caller's, or a new one without one.

    None where the caller's own must not go into a header. Source: requirement AZ-11.
    """
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            return text if _VISIBLE_ASCII.fullmatch(text) else None
    return str(uuid.UUID(ids.new_uuid_urn().removeprefix(UUID_URN)))


def _gateway_response(status: int) -> Response:
    """Answer a gateway that could not be served: it keeps people out, and starts no sign-in.

    To gateways 401 means "sign in" and most other statuses are trouble of their own; only what an
    app's own rule says lets anybody in, and here no app is known. Requirements FWA-21, FWA-35.
    """
    is_ours = status >= INTERNAL_ERROR or status == TOO_MANY
    return Response(
        status_code=FORBIDDEN,
        headers={
            "cache-control": "no-store",
            "x-signalhub-decision": "FALLBACK" if is_ours else "ERROR",
        },
    )


def _plain_response(scope: Scope, status: int, detail: str, headers: Mapping[str, str]) -> Response:
    """Answer as AuthZEN prescribes: an error message string. Requirements AZ-8, AZ-11."""
    kept = {"cache-control": "no-store", **headers}
    if request_id := request_id_of(scope):
        kept["x-request-id"] = request_id
    return PlainTextResponse(detail + "\n", status_code=status, headers=kept)


def response_of(error: Exception, scope: Scope) -> Response:
    """Return the answer to a request that ended in `error`. scope: with the tenant taken off."""
    if isinstance(error, Refused):
        headers = _challenge(error, scope)
        if isinstance(error, TooManyRequests):
            headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        return problem_response(
            scope, error.status, error.detail, headers=headers, pointers=error.pointers
        )
    if isinstance(error, Unavailable):
        return _unavailable(scope, error.detail, error.retry_after_s)
    if isinstance(error, HTTPException):
        return problem_response(scope, error.status_code, _detail_of(error), headers=error.headers)
    if isinstance(error, SharedSignalsError) and not isinstance(error, LocalProtocolError):
        return problem_response(scope, error.status_hint, error.description)
    if isinstance(error, ClientDisconnect):
        # Nobody reads this answer, but it is no fault of ours either.
        return problem_response(scope, BAD_REQUEST, "The body ended early.")
    return _response_of_trouble(error, scope)


def _response_of_trouble(error: Exception, scope: Scope) -> Response:
    """Answer what no rule foresaw: the database, or a bug."""
    if is_data_error(error):
        log.warning("request.failed", path=scope["path"], error=type(error).__name__)
        return problem_response(scope, BAD_REQUEST, "A value in the request cannot be stored.")
    if was_undone(error):
        # It waited for somebody who waited for it, several times in a row; nothing was written.
        log.warning("request.failed", path=scope["path"], error="deadlock")
        return _unavailable(scope, "Others changed the same at the same time.", BUSY_RETRY_AFTER_S)
    if isinstance(error, _OUTAGES):
        log.warning("request.failed", path=scope["path"], error=type(error).__name__)
        return _unavailable(scope, "The database is not reachable.", RETRY_AFTER_S)
    response = problem_response(scope, INTERNAL_ERROR, "The hub failed; the log has the reason.")
    request_id = response.headers["x-request-id"]
    log.error("request.failed", path=scope["path"], request_id=request_id, exc_info=error)
    return response


async def render_exception(request: Request, error: Exception) -> Response:
    """Answer an exception that reached Starlette's own handling."""
    return response_of(error, request.scope)


def is_data_error(error: Exception) -> bool:
    """Tell a value that the database cannot hold (SQLSTATE class 22, or 54) from other trouble."""
    if not isinstance(error, sqlalchemy.exc.DBAPIError):
        return False
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    return isinstance(error, sqlalchemy.exc.DataError) or sqlstate[:2] in {"22", "54"}


def _unavailable(scope: Scope, detail: str, retry_after_s: float) -> Response:
    headers = {"retry-after": str(max(1, round(retry_after_s)))}
    return problem_response(scope, UNAVAILABLE, detail, headers=headers)


def _detail_of(error: HTTPException) -> str:
    """Return our own text where there is one, else the fixed title of the status."""
    title = TITLES.get(error.status_code, "Error")
    try:
        is_own = error.detail != HTTPStatus(error.status_code).phrase
    except ValueError:
        is_own = False
    return error.detail if is_own and error.detail else f"{title}."


def _instance(scope: Scope) -> str:
    """Return the URN of a request: of its X-Request-ID where that is a UUID, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            try:
                return uuid.UUID(value.decode("ascii")).urn
            except ValueError:
                break
    return ids.new_uuid_urn()


class ErrorBoundary:
    """Pure ASGI middleware: no exception leaves the application without a proper answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass through; answer in the error's form unless the answer had begun."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            if started:
                raise
            await response_of(error, scope)(scope, receive, send)


def _challenge(error: Refused, scope: Scope) -> dict[str, str]:
    """Return the `WWW-Authenticate` header that goes with a refusal.

    Source: RFC 6750 §3, which wants a parameter after the scheme; RFC 9728 §5.1; requirements
    INT-29, OA-3, OA-6.
    """
    if isinstance(error, Forbidden):
        code = "insufficient_scope" if error.scope else None
    elif isinstance(error, Unauthorized):
        code = error.code
    else:
        code = getattr(error, "code", None)
    if code is None and not isinstance(error, Unauthorized):
        return {}
    challenge = 'Bearer realm="signalhub"' + (f', error="{code}"' if code else "")
    if isinstance(error, Forbidden):
        challenge += f', scope="{error.scope}"'
    if isinstance(error, Unauthorized | Forbidden) and "resource_metadata" in scope:
        where = metadata_url(scope["resource_metadata"], scope["path"])
        challenge += f', resource_metadata="{where}"'
    return {"www-authenticate": challenge}
