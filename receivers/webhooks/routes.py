"""The door for webhooks: `POST {base}/v1/signals/webhook/{provider}`."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receivers.model import ProviderStatus
from receivers.routes import peer_of
from receivers.service import ReceiversDeps, find_provider
from receivers.webhooks import service
from runtime.errors import NotFound, Refused, Unauthorized

ACCEPTED: Final = 202
CONTENT_TOO_LARGE: Final = 413
UNSUPPORTED_MEDIA_TYPE: Final = 415


class Gone(Refused):
    """The provider was switched off here: the sender may stop (WH-13)."""

    status = 410


async def receive_webhook(request: Request) -> Response:
    """Take one message: 202 with an empty body after the commit, also for a repeat.

    Raises what hub renders: NotFound, Gone (410), HTTPException (413, 415), Unauthorized (401),
    Invalid (400 with what is missing), TooManyRequests (429) and Unavailable (503), both with
    Retry-After. Requirements WH-10 to WH-14.
    """
    deps: ReceiversDeps = request.app.state.receivers
    provider = await find_provider(
        deps.profiles, request.scope["tenant"], request.path_params["provider"]
    )
    if provider.webhook is None:
        raise NotFound("No such provider.")
    if provider.status is ProviderStatus.INACTIVE:
        raise Gone("This provider is switched off.")
    peer, now = peer_of(request), deps.clock.now()
    deps.limits.admit(provider, peer, now)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise HTTPException(UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json.")
    body = await request.body()
    if len(body) > service.BODY_BYTES_MAX:
        raise HTTPException(
            CONTENT_TOO_LARGE, f"A message has at most {service.BODY_BYTES_MAX} bytes here."
        )
    try:
        await service.accept(
            body,
            request.headers,
            provider=provider,
            intake=provider.webhook,
            now=now,
            writer=deps.writer,
        )
    except Unauthorized:
        deps.limits.note_unproven(provider, peer, now)
        raise
    return Response(status_code=ACCEPTED, headers={"cache-control": "no-store"})


ROUTES: Final = (Route("/v1/signals/webhook/{provider}", receive_webhook, methods=["POST"]),)
