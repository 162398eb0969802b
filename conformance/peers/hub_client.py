"""What peers ask of the hub: registering sessions, and creating streams."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec

from conformance.peers.clock import timestamp
from conformance.peers.errors import HubError
from conformance.peers.options import HubOptions
from conformance.peers.sessions import Session
from ssf.metadata import metadata_url

ATTEMPTS_MAX = 5
FIRST_PAUSE_S = 0.1
CONFLICT = 409
PUSH_METHOD = "urn:ietf:rfc:8935"
POLL_METHOD = "urn:ietf:rfc:8936"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """The delivery object of a stream (SSF-DEL rows)."""

    method: str
    endpoint_url: str


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as the hub configured it (SSF-CFG rows)."""

    stream_id: str
    iss: str
    aud: str | tuple[str, ...]
    delivery: Delivery
    events_delivered: tuple[str, ...] = ()
    description: str | None = None

    @property
    def audiences(self) -> frozenset[str]:
        """`aud` as a set."""
        return frozenset({self.aud} if isinstance(self.aud, str) else self.aud)


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    issuer: str
    jwks_uri: str
    configuration_endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedStream:
    """A stream and where its transmitter publishes its keys."""

    stream: Stream
    jwks_url: str


async def register_session(
    client: httpx2.AsyncClient,
    options: HubOptions,
    session: Session,
    *,
    issuer: str,
    user: dict[str, str],
    cookie_sha256: str | None = None,
) -> bool:
    """Tell the hub about a session: `PUT {hub}/v1/sessions/{sid}`.

    user: a subject identifier. Returns False when no hub is configured.
    Raises HubError when the hub does not take it after a few tries.
    """
    if options.hub is None or options.hub_token is None:
        return False
    body: dict[str, object] = {
        "iss": issuer,
        "user": user,
        "device": session.device,
        "started_at": timestamp(session.started_at_s),
        "cookie_sha256": cookie_sha256,
    }
    url = f"{options.hub}/v1/sessions/{session.sid}"
    problem: str | None = None
    for attempt in range(ATTEMPTS_MAX):
        problem = await _put(client, url, body, options.hub_token)
        if problem is None:
            return True
        if attempt + 1 < ATTEMPTS_MAX:
            await asyncio.sleep(FIRST_PAUSE_S * 2**attempt)
    raise HubError(f"the hub did not take the session: {problem}")


async def end_session(
    client: httpx2.AsyncClient, options: HubOptions, sid: str, *, issuer: str
) -> None:
    """Tell the hub that a session is over. Raises HubError."""
    if options.hub is not None:
        await _told(
            client.delete(
                f"{options.hub}/v1/sessions/{sid}", params={"iss": issuer}, headers=_bearer(options)
            )
        )


async def settle_step_up(
    client: httpx2.AsyncClient,
    options: HubOptions,
    sid: str,
    *,
    step_up_id: str,
    body: dict[str, object],
) -> None:
    """Tell the hub how a step-up ended. Raises HubError."""
    if options.hub is not None:
        url = f"{options.hub}/v1/sessions/{sid}/step-ups/{step_up_id}"
        await _told(client.post(url, json=body, headers=_bearer(options)))


def _bearer(options: HubOptions) -> dict[str, str]:
    return {"authorization": f"Bearer {options.hub_token}"}


async def _told(request: Any) -> None:
    answer = await _answered(request)
    if not answer.is_success:
        raise HubError(f"{answer.request.url}: {answer.status_code} {answer.text[:300]}")


async def _put(
    client: httpx2.AsyncClient, url: str, body: dict[str, object], token: str
) -> str | None:
    """Send once; return what went wrong."""
    present = {name: value for name, value in body.items() if value is not None}
    try:
        answer = await client.put(url, json=present, headers={"authorization": f"Bearer {token}"})
    except httpx2.HTTPError as failure:
        return type(failure).__name__
    return None if answer.is_success else f"{answer.status_code} {answer.text[:300]}"


async def create_stream(
    client: httpx2.AsyncClient,
    options: HubOptions,
    *,
    wanted_delivery: dict[str, str],
    events_requested: Sequence[str],
    description: str,
) -> ConnectedStream:
    """Create a stream at the hub, found through its metadata.

    If the hub allows only one (409), the existing stream is deleted when its description is ours,
    and creation is tried once more. Raises HubError. Requirements SSF-META-20, SSF-META-23,
    SSF-OP-1, SSF-OP-50, SSF-OP-51.
    """
    if options.hub is None or options.hub_token is None:
        raise HubError("no hub and hub_token are configured")
    headers = {"authorization": f"Bearer {options.hub_token}"}
    metadata = await _decoded(client.get(metadata_url(options.hub)), _Metadata)
    if metadata.issuer != options.hub:
        raise HubError("the metadata names another issuer")
    wanted = {
        "delivery": wanted_delivery,
        "events_requested": list(events_requested),
        "description": description,
    }
    endpoint = metadata.configuration_endpoint
    answer = await _answered(client.post(endpoint, json=wanted, headers=headers))
    if answer.status_code == CONFLICT:
        await _delete_ours(client, endpoint, headers, description)
        answer = await _answered(client.post(endpoint, json=wanted, headers=headers))
    stream = _decode(answer, Stream)
    if stream.iss != metadata.issuer or stream.delivery.method != wanted_delivery["method"]:
        raise HubError("the stream has another issuer or method than asked for")
    return ConnectedStream(stream=stream, jwks_url=metadata.jwks_uri)


async def _delete_ours(
    client: httpx2.AsyncClient, endpoint: str, headers: dict[str, str], description: str
) -> None:
    existing = await _decoded(client.get(endpoint, headers=headers), list[Stream])
    for stream in existing:
        if stream.description == description:
            params = {"stream_id": stream.stream_id}
            await _answered(client.delete(endpoint, params=params, headers=headers))


async def _answered(request: Any) -> httpx2.Response:
    try:
        answer: httpx2.Response = await request
    except httpx2.HTTPError as failure:
        raise HubError(f"no answer: {type(failure).__name__}") from failure
    return answer


async def _decoded(request: Any, wanted: Any) -> Any:
    return _decode(await _answered(request), wanted)


def _decode(answer: httpx2.Response, wanted: Any) -> Any:
    if not answer.is_success:
        raise HubError(f"{answer.request.url}: {answer.status_code} {answer.text[:300]}")
    try:
        return msgspec.json.decode(answer.content, type=wanted)
    except msgspec.MsgspecError as cause:
        raise HubError(f"{answer.request.url}: {cause}") from cause
