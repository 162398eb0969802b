"""HTTP of the transmitter: metadata, keys, streams, status, subjects, verification, poll.

Order of checks (SSF-OP-52): the router answers 405, then the caller's scope 401 and 403, then the
body's syntax 400, then the stream 404, then its meaning. Errors are raised; hub renders them.
"""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.caller import Caller
from ssf.errors import PollError, RemoteProtocolError, StreamError
from ssf.metadata import WELL_KNOWN_PATH, TransmitterMetadata, render_metadata
from ssf.poll import REQUEST_BYTES_MAX as POLL_BYTES_MAX
from ssf.poll import parse_request, render_response
from ssf.profile import OLD_METHODS, OLD_WELL_KNOWN_PATH
from ssf.stream import REQUEST_BYTES_MAX as STREAM_BYTES_MAX
from ssf.stream import (
    DeliveryMethod,
    parse_create,
    parse_patch,
    parse_put,
    render_configuration,
    render_status,
)
from ssf.stream_requests import (
    parse_status_update,
    parse_subject_request,
    parse_verification_request,
)
from transmitters import management, service
from transmitters.deps import TransmitterDeps
from transmitters.subjects import service as subjects

JSON_MEDIA_TYPE: Final = "application/json"
#: long enough to spare us floods, short enough for a key that is published before it signs
PUBLIC_MAX_AGE_S: Final = 60
READ_SCOPES: Final = ("ssf.read", "ssf.manage")
MANAGE_SCOPES: Final = ("ssf.manage",)
POLL_SCOPES: Final = ("ssf.read", "ssf.manage", "ssf.manage.poll")
BAD_REQUEST: Final = 400
TOO_LARGE: Final = 413
UNSUPPORTED_MEDIA_TYPE: Final = 415
NO_STORE: Final = "no-store"


async def get_metadata(request: Request) -> Response:
    """Serve the transmitter configuration metadata: only what this hub really answers.

    Source: SSF 1.0 §7.1, §7.2; requirements SSF-META-1 to SSF-META-12, SSF-META-20 to SSF-META-22,
    SSF-META-26, INT-3 to INT-9.
    """
    return await _metadata(request, _METHODS)


async def get_old_metadata(request: Request) -> Response:
    """Serve the same where drafts had it, with their names of the methods. OLD-1, OLD-2."""
    return await _metadata(request, (*_METHODS, *OLD_METHODS))


_METHODS: Final = (DeliveryMethod.PUSH.value, DeliveryMethod.POLL.value)


async def _metadata(request: Request, methods: tuple[str, ...]) -> Response:
    deps, tenant_id = _deps(request), request.scope["tenant"]
    issuer = deps.issuer(tenant_id)
    metadata = TransmitterMetadata(
        issuer=issuer,
        jwks_uri=f"{issuer}/jwks.json",
        delivery_methods_supported=methods,
        configuration_endpoint=f"{issuer}/ssf/streams",
        status_endpoint=f"{issuer}/ssf/status",
        add_subject_endpoint=f"{issuer}/ssf/subjects:add",
        remove_subject_endpoint=f"{issuer}/ssf/subjects:remove",
        verification_endpoint=f"{issuer}/ssf/verify",
        authorization_schemes=deps.authorization_schemes,
        default_subjects=await deps.default_subjects(tenant_id),
    )
    return _json(render_metadata(metadata), cache=f"public, max-age={PUBLIC_MAX_AGE_S}")


async def get_jwks(request: Request) -> Response:
    """Serve the tenant's public keys. Source: RFC 7517 §5; requirements SET-35, INT-5."""
    keys = await _deps(request).keys.published(request.scope["tenant"])
    return _json(keys, cache=f"public, max-age={PUBLIC_MAX_AGE_S}")


async def streams(request: Request) -> Response:
    """Create, read, list, update, replace or delete streams of the caller.

    Source: SSF 1.0 §8.1.1.
    """
    return await _STREAM_METHODS[request.method](request)


async def status(request: Request) -> Response:
    """Serve or set the status of one stream. Source: SSF 1.0 §8.1.2."""
    if request.method == "POST":
        return await _set_status(request)
    return await _get_status(request)


async def add_subject(request: Request) -> Response:
    """Add a subject: 200 with an empty body. Source: SSF 1.0 §8.1.3.2; SSF-SUBJ-1."""
    caller, deps = _caller(request, MANAGE_SCOPES), _deps(request)
    subjects.check_rate(caller, deps)
    wanted = parse_subject_request(await _stream_body(request, "SSF-SUBJ-4"))
    await subjects.add_subject(wanted, caller=caller, deps=deps)
    return Response(status_code=200, headers={"cache-control": NO_STORE})


async def remove_subject(request: Request) -> Response:
    """Remove a subject: 204. Source: SSF 1.0 §8.1.3.3; SSF-SUBJ-3."""
    caller, deps = _caller(request, MANAGE_SCOPES), _deps(request)
    subjects.check_rate(caller, deps)
    wanted = parse_subject_request(await _stream_body(request, "SSF-SUBJ-4"))
    await subjects.remove_subject(wanted, caller=caller, deps=deps)
    return Response(status_code=204, headers={"cache-control": NO_STORE})


async def verify(request: Request) -> Response:
    """Queue a verification event: 204. Source: SSF 1.0 §8.1.4.2; SSF-VER-1."""
    caller, deps = _caller(request, MANAGE_SCOPES), _deps(request)
    wanted = parse_verification_request(await _stream_body(request, "SSF-VER-1"))
    await management.request_verification(wanted, caller=caller, deps=deps)
    return Response(status_code=204, headers={"cache-control": NO_STORE})


async def _get_status(request: Request) -> Response:
    caller = _caller(request, READ_SCOPES)
    stream_id = await _stream_id(request, caller, "SSF-STAT-1")
    configuration = await management.read_stream(stream_id, caller=caller, deps=_deps(request))
    return _json(render_status(configuration))


async def _set_status(request: Request) -> Response:
    caller, deps = _caller(request, MANAGE_SCOPES), _deps(request)
    wanted = parse_status_update(await _stream_body(request, "SSF-STAT-7"))
    if request.query_params.get("stream_id", wanted.stream_id) != wanted.stream_id:
        # The stream before the meaning: one that is not the caller's is unknown, first of all.
        await management.read_stream(wanted.stream_id, caller=caller, deps=deps)
        raise StreamError(
            "invalid_request", "query and body name different streams", requirement="SSF-STAT-8"
        )
    configuration = await management.set_status(wanted, caller=caller, deps=deps)
    return _json(render_status(configuration))


async def poll(request: Request) -> Response:
    """Answer a poll. Source: RFC 8936 §2; requirements POLL-1, POLL-8, POLL-10, POLL-19, POLL-24.

    The token is enough to tell receivers apart, so a stream of somebody else is unknown (404). One
    that ended while the poll waited is handed nothing (401).
    """
    caller = _caller(request, POLL_SCOPES)

    async def check() -> None:
        again: Caller = await request.state.caller_again()
        again.require(*POLL_SCOPES)

    body = await _read_json(request, POLL_BYTES_MAX, PollError, "POLL-24")
    polled = await service.poll(
        request.path_params["stream_id"],
        parse_request(body),
        caller=caller,
        deps=_deps(request),
        is_gone=request.is_disconnected,
        check=check,
    )
    return Response(
        render_response(polled.sets, more_available=polled.more_available),
        media_type=JSON_MEDIA_TYPE,
        headers={"cache-control": NO_STORE},
    )


async def _create_stream(request: Request) -> Response:
    caller, deps = _caller(request, MANAGE_SCOPES), _deps(request)
    wanted = parse_create(await _stream_body(request, "SSF-OP-54"), allow_http=deps.allow_http)
    configuration = await management.create_stream(wanted, caller=caller, deps=deps)
    return _json(render_configuration(configuration), status=201)


async def _read_streams(request: Request) -> Response:
    caller, deps = _caller(request, READ_SCOPES), _deps(request)
    stream_id = request.query_params.get("stream_id")
    if stream_id is None:
        stream_id = await management.only_stream(caller=caller, deps=deps)
    if stream_id is not None:
        configuration = await management.read_stream(stream_id, caller=caller, deps=deps)
        return _json(render_configuration(configuration))
    configurations = await management.list_streams(caller=caller, deps=deps)
    return _json([render_configuration(configuration) for configuration in configurations])


async def _change_stream(request: Request) -> Response:
    caller, deps = _caller(request, MANAGE_SCOPES), _deps(request)
    parse = parse_patch if request.method == "PATCH" else parse_put
    change = parse(await _stream_body(request, "SSF-OP-54"), allow_http=deps.allow_http)
    configuration = await management.change_stream(change, caller=caller, deps=deps)
    return _json(render_configuration(configuration))


async def _delete_stream(request: Request) -> Response:
    caller = _caller(request, MANAGE_SCOPES)
    stream_id = await _stream_id(request, caller, "SSF-OP-40")
    await management.delete_stream(stream_id, caller=caller, deps=_deps(request))
    return Response(status_code=204, headers={"cache-control": NO_STORE})


_STREAM_METHODS: Final = {
    "POST": _create_stream,
    "GET": _read_streams,
    "HEAD": _read_streams,
    "PATCH": _change_stream,
    "PUT": _change_stream,
    "DELETE": _delete_stream,
}


async def _stream_body(request: Request, requirement: str) -> bytes:
    return await _read_json(request, STREAM_BYTES_MAX, StreamError, requirement)


def _deps(request: Request) -> TransmitterDeps:
    deps: TransmitterDeps = request.app.state.transmitters
    return deps


def _caller(request: Request, scopes: tuple[str, ...]) -> Caller:
    """Return the caller if it holds one of `scopes`. Requirement INT-25."""
    caller: Caller = request.state.caller
    caller.require(*scopes)
    return caller


async def _stream_id(request: Request, caller: Caller, requirement: str) -> str:
    """Return the query parameter that names the stream; only in an old draft it may be missing."""
    stream_id = request.query_params.get("stream_id")
    if stream_id is None:
        stream_id = await management.only_stream(caller=caller, deps=_deps(request))
    if not stream_id:
        raise StreamError(
            "invalid_request", "stream_id is missing in the query", requirement=requirement
        )
    return stream_id


async def _read_json(
    request: Request, bytes_max: int, error: type[RemoteProtocolError], requirement: str
) -> bytes:
    """Read a JSON body within limits; an empty one may come without a content type.

    Raises `error` with status 413, and with 415 or, for stream management, 400.
    Requirements SSF-OP-54, POLL-24.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > bytes_max:
            raise error(
                "invalid_request",
                f"the body is larger than {bytes_max} bytes",
                requirement=requirement,
                status_hint=TOO_LARGE,
            )
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media_type != JSON_MEDIA_TYPE:
        raise error(
            "invalid_request",
            f"the body is not {JSON_MEDIA_TYPE}",
            requirement=requirement,
            status_hint=BAD_REQUEST if error is StreamError else UNSUPPORTED_MEDIA_TYPE,
        )
    return bytes(body)


def _json(content: object, *, status: int = 200, cache: str = NO_STORE) -> Response:
    return Response(
        msgspec.json.encode(content),
        status_code=status,
        media_type=JSON_MEDIA_TYPE,
        headers={"cache-control": cache},
    )


ROUTES: Final = (
    Route(WELL_KNOWN_PATH, get_metadata, methods=["GET"]),
    Route(OLD_WELL_KNOWN_PATH, get_old_metadata, methods=["GET"]),
    Route("/jwks.json", get_jwks, methods=["GET"]),
    Route("/ssf/streams", streams, methods=["GET", "POST", "PATCH", "PUT", "DELETE"]),
    Route("/ssf/status", status, methods=["GET", "POST"]),
    Route("/ssf/subjects:add", add_subject, methods=["POST"]),
    Route("/ssf/subjects:remove", remove_subject, methods=["POST"]),
    Route("/ssf/verify", verify, methods=["POST"]),
    Route("/ssf/poll/{stream_id}", poll, methods=["POST"]),
)
