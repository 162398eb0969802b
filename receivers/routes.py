"""The door for pushed SETs: `POST {base}/receivers/{provider}/events` (RFC 8935)."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receivers import service
from receivers.refusals.log import Witness
from receivers.service import ReceiversDeps
from ssf.errors import SETError
from ssf.jose import SET_BYTES_MAX
from ssf.push import SECEVENT_MEDIA_TYPE, render_error

ACCEPTED: Final = 202
BAD_REQUEST: Final = 400
CONTENT_TOO_LARGE: Final = 413
UNSUPPORTED_MEDIA_TYPE: Final = 415

_REFUSAL_HEADERS: Final = {"content-language": "en", "cache-control": "no-store"}


async def receive_push(request: Request) -> Response:
    """Take one SET: 202 with an empty body, or the error of RFC 8935 §2.3.

    The caller is checked before the body is read. Raises what hub renders: NotFound (404),
    HTTPException (413, 415), TooManyRequests (429) and Unavailable (503), both with Retry-After.
    Requirements PUSH-7, PUSH-12, PUSH-14, PUSH-18, PUSH-20, PUSH-21, SET-50, EGW-4, EGW-37.
    """
    deps: ReceiversDeps = request.app.state.receivers
    now = deps.clock.now()
    provider = await service.find_provider(
        deps.profiles, request.scope["tenant"], request.path_params["provider"]
    )
    headers = request.headers
    peer = peer_of(request)
    witness = None if deps.refusals is None else Witness(deps.refusals, peer)
    try:
        service.check_caller(provider, headers.get("authorization"))
        deps.limits.admit(provider, peer, now)
        check_media_type(headers.get("content-type"))
        raw = await read_body(request)
        await service.accept(
            raw, provider=provider, now=now, keys=deps.keys, writer=deps.writer, witness=witness
        )
    except SETError as refusal:
        if isinstance(refusal, service.UnprovenError):
            deps.limits.note_unproven(provider, peer, now)
        if witness is not None and refusal.status_hint == service.UNAUTHORIZED:
            # The body of a stranger is not even read.
            witness.note(provider, refusal, raw=None, now=now)
        return render_refusal(refusal)
    return Response(status_code=ACCEPTED)


def peer_of(request: Request) -> str:
    """Return the address of the sender, "" when it is not known. Raises nothing."""
    client = request.client
    return "" if client is None else client.host


def check_media_type(value: str | None) -> None:
    """Pass for `application/secevent+jwt`, whatever its case and parameters; else 415 (PUSH-2)."""
    if value != SECEVENT_MEDIA_TYPE and (
        value is None or value.partition(";")[0].strip().lower() != SECEVENT_MEDIA_TYPE
    ):
        raise HTTPException(
            UNSUPPORTED_MEDIA_TYPE,
            f"The content type must be {SECEVENT_MEDIA_TYPE}.",
            headers={"accept-post": SECEVENT_MEDIA_TYPE},
        )


async def read_body(request: Request) -> bytes:
    """Read at most SET_BYTES_MAX bytes, announced or chunked; more is refused with 413."""
    receive = request.receive
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            # Nobody reads this answer, but it is no fault of ours either.
            raise HTTPException(BAD_REQUEST, "The body ended early.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > SET_BYTES_MAX:
            raise HTTPException(CONTENT_TOO_LARGE, f"A SET has at most {SET_BYTES_MAX} bytes here.")
    return body


def render_refusal(refusal: SETError) -> Response:
    """Render the error body of RFC 8935 §2.3; texts are English (PUSH-13)."""
    headers = dict(_REFUSAL_HEADERS)
    if refusal.status_hint == service.UNAUTHORIZED:
        # RFC 9110 §11.6.1: a 401 names a scheme.
        headers["www-authenticate"] = 'Bearer realm="receivers"'
    return Response(
        render_error(refusal),
        status_code=refusal.status_hint,
        media_type="application/json",
        headers=headers,
    )


ROUTES: Final = (
    Route("/receivers/{provider}/events", receive_push, methods=["POST"], name="receive_push"),
)
