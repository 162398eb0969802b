"""The facts of a request as they are kept, so that a proposed policy can be tried on them.

    encode(facts, app_ids) ─▶ bytes ─▶ table of contexts ─▶ decode(bytes) ─▶ (facts, app_ids)

msgpack arrays, about 150 bytes per request. New fields are added at the end, with a default: what
was recorded before stays readable. What the caller sent (`extra`) is kept up to a limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from risk.model import Level
from risk.policies.facts import AddressFacts, RequestFacts
from risk.verdict import Decision

#: `extra` that is larger as msgpack is not kept
EXTRA_BYTES_MAX: Final = 4_096


class RecordedAddress(msgspec.Struct, frozen=True, array_like=True):
    """What was known of the address."""

    ip: str
    known: bool = False
    asn: int | None = None
    organisation: str | None = None
    country: str | None = None
    region: str | None = None
    city: str | None = None
    categories: frozenset[str] = frozenset()
    operator: str | None = None


class RecordedFacts(msgspec.Struct, frozen=True, array_like=True):
    """`RequestFacts` as it is kept, and the apps of the session at that time."""

    kind: str
    level: int
    user_level: int = 1
    device_level: int = 1
    zones: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    app_id: str | None = None
    record: RecordedAddress | None = None
    posture: dict[str, str] = {}
    behaviours: dict[str, str] = {}
    detections: frozenset[str] = frozenset()
    changes: tuple[str, ...] = ()
    amr: tuple[str, ...] = ()
    acr: str | None = None
    auth_age_s: float | None = None
    issuer: str | None = None
    exempt: bool = False
    app_ids: tuple[str, ...] = ()
    extra: dict[str, Any] = {}


class RecordedContext(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded request. facts: of `encode`. decision: what was answered then.

    context_id: orders the records of a tenant by time, and names one. mark: context key and app, of
    which there is one record per session; not stored.
    """

    tenant_id: str
    context_id: str
    user_id: str
    session_id: str | None
    at: datetime
    facts: bytes
    decision: Decision
    mark: tuple[str, str | None] | None = None


_LEVELS: Final = {int(level): level for level in Level}
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(RecordedFacts)


def encode(facts: RequestFacts, app_ids: Sequence[str] = ()) -> bytes:
    """Return the facts as they are kept. app_ids: apps of the session. Raises nothing."""
    return _encoder.encode(
        RecordedFacts(
            kind=facts.kind,
            level=int(facts.level),
            user_level=int(facts.user_level),
            device_level=int(facts.device_level),
            zones=facts.zones,
            groups=facts.groups,
            app_id=facts.app_id,
            record=None if facts.record is None else _address(facts.record),
            posture=dict(facts.posture),
            behaviours=dict(facts.behaviours),
            detections=facts.detections,
            changes=tuple(facts.changes),
            amr=tuple(facts.amr),
            acr=facts.acr,
            auth_age_s=facts.auth_age_s,
            issuer=facts.issuer,
            exempt=facts.exempt,
            app_ids=tuple(app_ids),
            extra=_bounded(facts.extra),
        )
    )


def decode(raw: bytes) -> tuple[RequestFacts, tuple[str, ...]]:
    """Return what `encode` was given. Raises msgspec.MsgspecError for anything else."""
    try:
        kept = _decoder.decode(raw)
        levels = _LEVELS[kept.level], _LEVELS[kept.user_level], _LEVELS[kept.device_level]
    except (KeyError, ValueError) as error:  # also msgspec's own, and text that is no UTF-8
        raise msgspec.ValidationError("Not a record of facts.") from error
    facts = RequestFacts(
        kind=kept.kind,
        level=levels[0],
        user_level=levels[1],
        device_level=levels[2],
        zones=kept.zones,
        groups=kept.groups,
        app_id=kept.app_id,
        record=kept.record,
        posture=kept.posture,
        behaviours=kept.behaviours,
        detections=kept.detections,
        changes=kept.changes,
        amr=kept.amr,
        acr=kept.acr,
        auth_age_s=kept.auth_age_s,
        issuer=kept.issuer,
        exempt=kept.exempt,
        extra=kept.extra,
    )
    return facts, kept.app_ids


def _address(record: AddressFacts) -> RecordedAddress:
    return RecordedAddress(
        ip=record.ip,
        known=record.known,
        asn=record.asn,
        organisation=record.organisation,
        country=record.country,
        region=record.region,
        city=record.city,
        categories=record.categories,
        operator=record.operator,
    )


def _bounded(extra: Mapping[str, object]) -> dict[str, Any]:
    if not extra:
        return {}
    try:
        kept = _encoder.encode(extra)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return {}  # values that no request body holds
    if len(kept) > EXTRA_BYTES_MAX:
        return {}
    return dict(extra)
