"""First-party intake: detections, remedies and posture, `POST {base}/v1/signals/…`.

    what is said ─▶ whose word? ─▶ each one checked ─▶ the inbox of SETs ─▶ commit ─▶ 202

Whoever has a detector, or knows that a cause is remedied, says so in one JSON object. It takes the
same way as a SET of a provider: durable first, then assessed, with the provider's mode, cap, scope
and guard. The client must be bound to a provider (`providers.client_id`): a word needs an issuer.
Source: threat model §1.3; contracts §8.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import structlog
from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import actions.registry.service
from hub.node import Node
from receivers.model import (
    JTI_BYTES_MAX,
    AcceptedSET,
    ProviderMode,
    ProviderProfile,
    ProviderStatus,
    SignalState,
    bounded_occurrence,
    is_in_scope,
)
from receivers.routes import peer_of
from receivers.service import ReceiversDeps
from receivers.store import ACCEPT
from risk import announced
from risk.announced import DETECTION, NAMED_BY_ID, POSTURE, REMEDY
from risk.entities import service as entities
from risk.model import EntityKind
from risk.sessions.model import parse_moment
from risk.sql.store import Connection
from runtime.caller import Caller
from runtime.errors import Forbidden, Invalid, NotFound
from runtime.ids import new_id
from ssf.errors import RemoteProtocolError, SubjectError
from ssf.strict_json import parse_array, parse_object
from ssf.subject import parse_subject, render_subject

SCOPE: Final = "signals.write"
ACCEPTED: Final = 202
CONTENT_TOO_LARGE: Final = 413
UNSUPPORTED_MEDIA_TYPE: Final = 415
BODY_BYTES_MAX: Final = 256 * 1024
ITEMS_MAX: Final = 100
ID_CHARS_MAX: Final = 200
#: what is older says nothing about today
AGE_MAX: Final = timedelta(days=90)
JSON_MEDIA_TYPE: Final = "application/json"
#: about the signal itself; the rest is the detection or the remedy
_ENVELOPE: Final = frozenset({"id", "sub_id", "entity", "occurred_at"})

#: of the event, filled in here alone
_NAMED_HERE: Final = frozenset({"entity_kind", "entity_id"})

log = structlog.get_logger()
_said_total = Counter(
    "hub_intake_signals_total", "Detections and remedies said by name.", ["kind", "outcome"]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """One item of a body. at: where it stands, for errors. payload: what of it is the event."""

    at: str
    payload: Mapping[str, Any]
    key: str
    sub_id: object
    entity: object
    occurred_at: datetime


async def post_detections(request: Request) -> Response:
    """Take up to 100 detections by name: 202 after the commit, also for repeats."""
    return await _post(request, DETECTION, announced.parse_detection)


async def post_remedies(request: Request) -> Response:
    """Take up to 100 remedies by name: 202 after the commit, also for repeats."""
    return await _post(request, REMEDY, announced.parse_remedy)


async def post_posture(request: Request) -> Response:
    """Take the posture of up to 100 devices: 202 after the commit, also for repeats."""
    return await _post(request, POSTURE, announced.parse_posture)


async def _post(
    request: Request, event_type: str, check: Callable[[Mapping[str, Any], str], object]
) -> Response:
    caller: Caller = request.state.caller
    caller.require(SCOPE)
    node: Node = request.app.state.node
    deps: ReceiversDeps = request.app.state.receivers
    now = node.clock.now()
    items = [_parse(*item, now=now) for item in _items(await _body(request))]
    for each in items:
        check(each.payload, each.at)
    provider = await _provider(deps, caller)
    deps.limits.admit(provider, peer_of(request), now)
    async with node.database.snapshot() as connection:
        rows = [
            await _row(connection, each, event_type=event_type, provider=provider, now=now)
            for each in items
        ]
    inserted = await asyncio.gather(*(node.writer.submit(ACCEPT, row) for row in rows))
    kind = event_type.rpartition(":")[2]
    for is_new in inserted:
        _said_total.labels(kind, "stored" if is_new else "duplicate").inc()
    log.info(
        "signal.accepted",
        tenant_id=caller.tenant_id,
        provider_id=provider.provider_id,
        kind=kind,
        stored=sum(inserted),
        duplicates=len(inserted) - sum(inserted),
    )
    return Response(
        msgspec.json.encode(
            {
                "items": [
                    {
                        "id": each.key,
                        "outcome": "stored" if is_new else "duplicate",
                        "signal_id": row.signal_id if is_new else None,
                    }
                    for each, row, is_new in zip(items, rows, inserted, strict=True)
                ]
            }
        ),
        status_code=ACCEPTED,
        media_type=JSON_MEDIA_TYPE,
        headers={"cache-control": "no-store"},
    )


async def _provider(deps: ReceiversDeps, caller: Caller) -> ProviderProfile:
    profiles = (await deps.profiles.get(caller.tenant_id)).values()
    bound = next((each for each in profiles if each.client_id == caller.client_id), None)
    if bound is None:
        detail = "Bind this client to a provider (client_id): a word needs somebody who says it."
        raise Forbidden(detail)
    if bound.status is ProviderStatus.INACTIVE:
        raise Forbidden("The provider of this client is switched off.")
    return bound


# --- reading ------------------------------------------------------------------------------------


async def _body(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON_MEDIA_TYPE:
        raise HTTPException(UNSUPPORTED_MEDIA_TYPE, f"Send the body as {JSON_MEDIA_TYPE}.")
    body = await request.body()
    if len(body) > BODY_BYTES_MAX:
        raise HTTPException(CONTENT_TOO_LARGE, f"A body has at most {BODY_BYTES_MAX} bytes here.")
    return body


def _items(body: bytes) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """Return the objects of a body with where they stand: one, or an array of them."""
    try:
        if body.lstrip()[:1] != b"[":
            return [("", parse_object(body, bytes_max=BODY_BYTES_MAX, error=_unreadable))]
        items = parse_array(body, bytes_max=BODY_BYTES_MAX, error=_unreadable)
    except RemoteProtocolError as error:
        raise Invalid(f"The body is not acceptable: {error.description}.") from error
    if not 0 < len(items) <= ITEMS_MAX or not all(isinstance(each, dict) for each in items):
        raise Invalid(f"Send one object, or an array of 1 to {ITEMS_MAX} objects.")
    return [(f"/{number}", each) for number, each in enumerate(items)]


def _unreadable(description: str) -> RemoteProtocolError:
    return RemoteProtocolError("invalid_request", description, requirement="PD-3")


def _parse(at: str, item: Mapping[str, Any], *, now: datetime) -> _Said:
    key = item.get("id")
    if key is None:
        # The same words at the same time are the same event.
        key = hashlib.sha256(msgspec.json.encode(item, order="sorted")).hexdigest()
    if not isinstance(key, str) or not 0 < len(key) <= ID_CHARS_MAX or not key.isprintable():
        raise _invalid(f"{at}/id", f"1 to {ID_CHARS_MAX} printable characters")
    if _NAMED_HERE & set(item):
        raise _invalid(f"{at}/entity", "say what it is about in entity")
    if ("sub_id" in item) is ("entity" in item):
        raise _invalid(f"{at}/sub_id", "exactly one of sub_id and entity says whom it concerns")
    return _Said(
        at=at,
        payload={name: value for name, value in item.items() if name not in _ENVELOPE},
        key=key,
        sub_id=item.get("sub_id"),
        entity=item.get("entity"),
        occurred_at=_moment(item.get("occurred_at"), f"{at}/occurred_at", now),
    )


def _moment(value: object, at: str, now: datetime) -> datetime:
    moment = parse_moment(value, at) or now
    if moment < now - AGE_MAX:
        raise _invalid(at, f"at most {AGE_MAX.days} days ago")
    return bounded_occurrence(moment, now)


def _invalid(pointer: str, rule: str) -> Invalid:
    return Invalid(f"{pointer}: {rule}.", pointers=((pointer, rule),))


# --- into the inbox -----------------------------------------------------------------------------


async def _row(
    connection: Connection,
    said: _Said,
    *,
    event_type: str,
    provider: ProviderProfile,
    now: datetime,
) -> AcceptedSET:
    subject, named = said.sub_id, dict[str, str]()
    if said.entity is not None:
        subject, named = await _by_reference(connection, provider.tenant_id, said)
    try:
        sub_id = parse_subject(subject)
    except SubjectError as error:
        raise _invalid(f"{said.at}/sub_id", error.description) from error
    if not is_in_scope(sub_id, provider.subject_scope):
        raise Forbidden("The subject is outside this provider's scope.")
    is_ignored = provider.mode is ProviderMode.NONE
    payload = msgspec.json.encode({**said.payload, **named})
    return AcceptedSET(
        tenant_id=provider.tenant_id,
        signal_id=new_id("sig"),
        provider_id=provider.provider_id,
        iss=provider.issuer,
        jti=_jti(event_type, said.key),
        event_type=event_type,
        sub_id=msgspec.json.encode(render_subject(sub_id)),
        payload=payload,
        txn=None,
        raw=payload.decode(),
        occurred_at=said.occurred_at,
        received_at=now,
        mode=provider.mode,
        state=SignalState.IGNORED if is_ignored else SignalState.RECEIVED,
        detail="the provider's mode is none" if is_ignored else None,
    )


def _jti(event_type: str, key: str) -> str:
    jti = f"{event_type.rpartition(':')[2]}:{key}"
    if len(jti.encode()) <= JTI_BYTES_MAX:
        return jti
    return f"sha256:{hashlib.sha256(jti.encode()).hexdigest()}"


async def _by_reference(
    connection: Connection, tenant_id: str, said: _Said
) -> tuple[object, dict[str, str]]:
    """Return the subject of an entity that is named as in our APIs. Raises Invalid, NotFound."""
    entity = said.entity
    at = f"{said.at}/entity"
    if not isinstance(entity, dict) or set(entity) != {"kind", "id"}:
        raise _invalid(at, "an object with kind and id")
    kinds = {EntityKind.USER, EntityKind.DEVICE, *NAMED_BY_ID}
    if not isinstance(entity["kind"], str) or entity["kind"] not in kinds:
        raise _invalid(f"{at}/kind", f"one of {', '.join(sorted(kinds))}")
    kind = EntityKind(entity["kind"])
    reference = entity["id"]
    if kind in NAMED_BY_ID:
        if kind is EntityKind.SERVICE_ACCOUNT:
            reference = await entities.resolve(connection, tenant_id, reference, kind=kind)
        elif not isinstance(reference, str) or "\0" in reference:
            raise _invalid(f"{at}/id", "an id")
        else:
            # Raises NotFound for what is no app of this tenant.
            await actions.registry.service.get_app(connection, tenant_id, reference)
        named = {"entity_kind": kind.value, "entity_id": reference}
        return {"format": "opaque", "id": reference}, named
    entity_id = await entities.resolve(connection, tenant_id, reference, kind=kind)
    identifiers = (await entities.view(connection, tenant_id, entity_id)).identifiers
    if not identifiers:
        raise NotFound(f"The {kind.value} goes by no name.")
    return dict(identifiers[0]), {}


ROUTES: Final = (
    Route("/v1/signals/detections", post_detections, methods=["POST"]),
    Route("/v1/signals/remedies", post_remedies, methods=["POST"]),
    Route("/v1/signals/posture", post_posture, methods=["POST"]),
)
