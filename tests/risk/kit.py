"""Signals, findings and a small world to assess them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from risk import service
from risk.entities import service as entities
from risk.entities.model import AddedEntity
from risk.entities.service import EntityFacts
from risk.explanation import user_risk
from risk.model import (
    Assessment,
    AssessResult,
    Clearance,
    Detection,
    DetectionState,
    EntityKind,
    Level,
    Sighting,
    Signal,
    SignalMode,
)
from risk.policies import service as policies
from risk.policy import PolicyMode
from risk.sessions import service as sessions
from risk.sessions.model import PutSessionResult, parse_session
from runtime.database import Database
from runtime.ids import new_id
from ssf.events.registry import OKTA_BASE, parse_event
from ssf.subject import parse_subject

NOW = datetime(2026, 3, 2, 16, 35, tzinfo=UTC)
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
OKTA = OKTA_BASE
MDM = "https://mdm.vendor.example"
EDR = "https://edr.vendor.example"
IDP = "https://login.customer.example"
TINA = {"format": "email", "email": "tina@customer.example"}
JIM = {"format": "email", "email": "jim@customer.example"}
LAPTOP = {"format": "opaque", "id": "LT-1"}
PHONE = {"format": "opaque", "id": "PH-1"}
TENANT = "default"

Caps = Mapping[tuple[str, str], Level]


def pair(user: Mapping[str, Any], device: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": "complex", "user": user, "device": device}


def signal(
    event_type: str,
    payload: Mapping[str, Any] | None = None,
    *,
    about: Mapping[str, Any] = TINA,
    iss: str = MDM,
    at: datetime = NOW,
    **more: Any,
) -> Signal:
    values: dict[str, Any] = {
        "tenant_id": TENANT,
        "signal_id": new_id("sig"),
        "iss": iss,
        "source_class": "partner",
        "level_cap": None,
        "mode": SignalMode.ENFORCE,
        "event": parse_event(event_type, payload or {}),
        "sub_id": parse_subject(dict(about), legacy=True),
        "occurred_at": at,
        "received_at": max(at, NOW),
        "txn": None,
    }
    return Signal(**(values | more))


def device_risk(level: str, **more: Any) -> Signal:
    payload = {
        "previous_level": "low",
        "current_level": level,
        "reason_admin": {"en": "Malware on the disk"},
    }
    about = more.pop("about", pair(TINA, LAPTOP))
    return signal(OKTA + "device-risk-change", payload, about=about, **more)


def user_level(level: str, **more: Any) -> Signal:
    payload = {"principal": "USER", "current_level": level, "risk_reason": "seen"}
    return signal(CAEP + "risk-level-change", payload, **more)


def compliance(status: str, **more: Any) -> Signal:
    payload = {"previous_status": "compliant", "current_status": status}
    about = more.pop("about", pair(TINA, LAPTOP))
    return signal(CAEP + "device-compliance-change", payload, about=about, **more)


def detection(**more: Any) -> Detection:
    """A finding about `usr_1`; `at`, `signal_id` set its one sighting."""
    at = more.pop("at", NOW)
    signal_id = more.pop("signal_id", "sig_1")
    values: dict[str, Any] = {
        "tenant_id": TENANT,
        "detection_id": "det_1",
        "revision": 1,
        "name": "partner_reported_risk",
        "source_class": "partner",
        "mode": SignalMode.ENFORCE,
        "entity_kind": EntityKind.USER,
        "entity_id": "usr_1",
        "related": (),
        "level": Level.MEDIUM,
        "confidence": 1.0,
        "issuer": MDM,
        "sightings": (Sighting(signal_id=signal_id, occurred_at=at),),
        "detected_at": NOW,
        "reasons": (),
        "clears_on": ("partner_lowered", "confirmed_safe"),
        "state": DetectionState.ACTIVE,
        "state_at": NOW,
        "state_by": signal_id,
    }
    return Detection(**(values | more))


def clearance(**more: Any) -> Clearance:
    values: dict[str, Any] = {
        "tenant_id": TENANT,
        "entity_id": "usr_1",
        "issuer": MDM,
        "remedy": "partner_lowered",
        "level": None,
        "mode": SignalMode.ENFORCE,
        "occurred_at": NOW,
        "signal_id": "sig_9",
    }
    return Clearance(**(values | more))


@dataclass
class World:
    """One tenant of a real database, with an enforcing policy unless asked otherwise."""

    database: Database
    caps: Caps = field(default_factory=dict)
    tenant_id: str = TENANT

    async def enforce(self) -> None:
        async with self.database.transaction() as connection:
            await policies.apply_preset(
                connection, self.tenant_id, "standard", mode=PolicyMode.ENFORCE, now=NOW
            )

    async def add_user(self, *identifiers: Mapping[str, Any], **facts: Any) -> str:
        return (await self.added(EntityKind.USER, *identifiers, **facts)).entity_id

    async def added(
        self, kind: EntityKind, *identifiers: Mapping[str, Any], **facts: Any
    ) -> AddedEntity:
        async with self.database.transaction() as connection:
            return await entities.add_entity(
                connection,
                self.tenant_id,
                kind=kind,
                facts=EntityFacts(identifiers=list(identifiers), **facts),
                now=NOW,
            )

    async def assess(self, *signals: Signal, now: datetime = NOW) -> AssessResult:
        async with self.database.transaction() as connection:
            return await service.assess(connection, signals, caps=self.caps, now=now)

    async def reassess(self, now: datetime = NOW) -> list[Assessment]:
        async with self.database.transaction() as connection:
            return await service.reassess_due(connection, now, limit=100, caps=self.caps)

    async def level(self, user: str = "email:tina@customer.example") -> str:
        async with self.database.snapshot() as connection:
            return (await user_risk(connection, self.tenant_id, user)).level.name

    async def put_session(self, sid: str, **more: Any) -> PutSessionResult:
        now = more.pop("now", NOW)
        iss = more.pop("iss", IDP)
        item = parse_session(
            {"user": TINA, **more}, tenant_id=self.tenant_id, iss=iss, sid=sid, now=now
        )
        async with self.database.transaction() as connection:
            return (await sessions.put_sessions(connection, [item]))[0]


def hours(count: float) -> timedelta:
    return timedelta(hours=count)
