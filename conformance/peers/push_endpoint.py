"""The push receiver of an application (RFC 8935; requirements PUSH-7 to PUSH-14, PUSH-21)."""

from starlette.requests import Request
from starlette.responses import Response

from conformance.peers.consumer import SETConsumer
from conformance.peers.errors import KeysUnavailableError
from conformance.peers.hub_client import ConnectedStream
from conformance.peers.ledger import Ledger, Outcome
from conformance.peers.options import AppOptions
from conformance.peers.peer import header_matches, json_response, media_type, read_body
from ssf.errors import SETError
from ssf.secevent import SET_BYTES_MAX

PUSH_PATH = "/events"
SECEVENT_MEDIA_TYPE = "application/secevent+jwt"


async def receive_push(
    request: Request,
    *,
    connected: ConnectedStream | None,
    consumer: SETConsumer,
    options: AppOptions,
    ledger: Ledger,
) -> Response:
    """Answer one push: 202 empty, or the error of RFC 8935 §2.3.

    The Authorization header comes first (PUSH-18), then the media type, then the SET.
    """
    if not header_matches(request, options.authorization_header):
        ledger.record("push.refused", Outcome.REFUSED, status=401, requirement="PUSH-21")
        content = {"err": "authentication_failed", "description": "wrong Authorization header"}
        return json_response(content, 401, WWW_Authenticate="Bearer")
    if media_type(request) != SECEVENT_MEDIA_TYPE:
        ledger.record("push.refused", Outcome.REFUSED, status=415, requirement="PUSH-2")
        return Response(status_code=415)
    body = await read_body(request, SET_BYTES_MAX)
    if connected is None:
        ledger.record("push.refused", Outcome.REFUSED, status=503, requirement="PUSH-14")
        return Response(status_code=503, headers={"retry-after": "1"})
    try:
        await consumer.consume(body, connected, options, by="push")
    except SETError as problem:
        content = {"err": problem.code, "description": problem.description}
        return json_response(content, 400, Content_Language="en")
    except KeysUnavailableError:
        ledger.record("push.refused", Outcome.REFUSED, status=503, requirement="SET-54")
        return Response(status_code=503, headers={"retry-after": "1"})
    return Response(status_code=202)
