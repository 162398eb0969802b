"""Errors become HTTP here and nowhere else.

Problem details (RFC 9457) by default; endpoints under `/ssf/` add `err` and `description` (PD-5).
The text never holds keys, tokens, subjects or traces.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime import ids
from runtime.errors import Forbidden, Refused, Unauthorized, Unavailable
from ssf.errors import LocalProtocolError, SharedSignalsError

PROBLEM_TYPE_BASE: Final = "https://signalhub.dev/problems/"
PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
SLUGS: Final = {
    400: "invalid-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    409: "conflict",
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

log = structlog.get_logger()


def problem_response(
    status: int,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    ssf: bool = False,
    pointers: tuple[tuple[str, str], ...] = (),
) -> Response:
    """Return a problem+json answer. Source: RFC 9457; requirements PD-1 to PD-5."""
    slug = SLUGS.get(status, "invalid-request")
    body: dict[str, Any] = {
        "type": PROBLEM_TYPE_BASE + slug,
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "instance": ids.new_uuid_urn(),
    }
    if pointers:
        body["errors"] = [
            {"pointer" if name.startswith("/") else "parameter": name, "detail": text}
            for name, text in pointers
        ]
    if ssf:
        body |= {"err": SSF_CODES.get(status, "internal"), "description": detail}
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type=PROBLEM_MEDIA_TYPE,
        headers={"cache-control": "no-store", **(headers or {})},
    )


def response_of(error: Exception, *, path: str) -> Response:
    """Return the answer to a request that ended in `error`."""
    ssf = path.startswith("/ssf/")
    if isinstance(error, Refused):
        return problem_response(
            error.status,
            error.detail,
            headers=_challenge(error),
            ssf=ssf,
            pointers=error.pointers,
        )
    if isinstance(error, Unavailable):
        retry_after = {"retry-after": str(max(1, round(error.retry_after_s)))}
        return problem_response(503, error.detail, headers=retry_after, ssf=ssf)
    if isinstance(error, HTTPException):
        detail = TITLES.get(error.status_code, error.detail)
        return problem_response(
            error.status_code, f"{detail}.", headers=dict(error.headers or {}), ssf=ssf
        )
    if isinstance(error, SharedSignalsError) and not isinstance(error, LocalProtocolError):
        return problem_response(error.status_hint, error.description, ssf=ssf)
    log.error("request.failed", path=path, exc_info=error)
    return problem_response(500, "The hub failed; the log has the reason.", ssf=ssf)


async def render_exception(request: Request, error: Exception) -> Response:
    """Answer an exception that reached Starlette's own handling."""
    return response_of(error, path=request.url.path)


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
            await response_of(error, path=scope["path"])(scope, receive, send)


def _challenge(error: Refused) -> dict[str, str]:
    """Return the `WWW-Authenticate` header of 401 and 403. Source: RFC 6750 §3; INT-29, OA-3."""
    if isinstance(error, Unauthorized):
        return {"www-authenticate": f'Bearer error="{error.code}"' if error.code else "Bearer"}
    if isinstance(error, Forbidden) and error.scope:
        return {"www-authenticate": f'Bearer error="insufficient_scope", scope="{error.scope}"'}
    return {}
