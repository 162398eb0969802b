"""From an event to what it means for risk: findings, remedies, facts about sessions. Pure.

`drafts` says what a signal claims, `risk.naming` says about whom, `risk.placement` brings both
together. An event without a meaning for risk gives no drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from risk import catalogue
from risk.model import REASON_CHARS_MAX, EntityKind, Level, Signal
from ssf.events import caep, risc, scim, vendor
from ssf.events.common import CommonMembers

_NO_RISK: Final = frozenset({"LOW", "SECURE", "NONE"})
#: "low" of a scale that goes down to "none" is a finding only when it came up from below
_BELOW_LOW: Final = frozenset({"SECURE", "NONE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionDraft:
    """A finding about the named entity of this kind."""

    kind: EntityKind
    name: str
    level: Level
    clears_on: tuple[str, ...]
    reason: str = ""
    confidence: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearanceDraft:
    """A remedy for the named entity of this kind; level: what remains, None for nothing."""

    kind: EntityKind
    remedy: str
    level: Level | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEndDraft:
    """The sessions that the subject selects, of the issuer itself, are over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSeenDraft:
    """The named session of the issuer exists."""

    acr: str | None = None
    amr: tuple[str, ...] | None = None


Draft: TypeAlias = DetectionDraft | ClearanceDraft | SessionEndDraft | SessionSeenDraft


def drafts(signal: Signal) -> tuple[Draft, ...]:
    """Return what the event claims; () when it says nothing about risk or sessions.

    Raises nothing. Source: threat model §1.3, §4.1; CAEP 1.0 §3, RISC 1.0 §2.
    """
    draft = _MAPPINGS.get(type(signal.event))
    return () if draft is None else draft(signal.event)


# --- what each event means ----------------------------------------------------------------------


def _device_compliance_change(event: caep.DeviceComplianceChange) -> tuple[Draft, ...]:
    # The list is closed; anything that is not "compliant" is treated as the worse of the two.
    if event.current_status.lower() == "compliant":
        return (ClearanceDraft(kind=EntityKind.DEVICE, remedy=catalogue.DEVICE_HEALTHY),)
    return (
        DetectionDraft(
            kind=EntityKind.DEVICE,
            name="device_not_compliant",
            level=Level.HIGH,
            clears_on=(catalogue.DEVICE_HEALTHY, catalogue.CONFIRMED_SAFE),
            reason=_reason(event),
        ),
    )


def _risk_level_change(event: caep.RiskLevelChange) -> tuple[Draft, ...]:
    reason = (event.risk_reason or _reason(event))[:REASON_CHARS_MAX]
    current = event.current_level.upper()
    match event.principal.upper():
        case "USER":
            return _user_level(current, reason)
        case "DEVICE":
            return _device_level(current, reason)
        case "SESSION":
            return _session_level(current, reason)
        case _:
            return ()


def _user_risk_change(event: vendor.UserRiskChange) -> tuple[Draft, ...]:
    current, previous = event.current_level.upper(), event.previous_level.upper()
    if current == Level.LOW.name and previous in _BELOW_LOW:
        return (
            ClearanceDraft(kind=EntityKind.USER, remedy=catalogue.PARTNER_LOWERED, level=Level.LOW),
            _partner_finding(Level.LOW, _reason(event)),
        )
    return _user_level(current, _reason(event))


def _device_risk_change(event: vendor.DeviceRiskChange) -> tuple[Draft, ...]:
    return _device_level(event.current_level.upper(), _reason(event))


def _user_level(current: str, reason: str) -> tuple[Draft, ...]:
    if current in _NO_RISK:
        return (ClearanceDraft(kind=EntityKind.USER, remedy=catalogue.PARTNER_LOWERED),)
    if current == Level.HIGH.name:
        return (_partner_finding(Level.HIGH, reason),)
    if current == Level.MEDIUM.name:
        return (
            ClearanceDraft(
                kind=EntityKind.USER, remedy=catalogue.PARTNER_LOWERED, level=Level.MEDIUM
            ),
            _partner_finding(Level.MEDIUM, reason),
        )
    return ()


def _partner_finding(level: Level, reason: str) -> DetectionDraft:
    return DetectionDraft(
        kind=EntityKind.USER,
        name="partner_reported_risk",
        level=level,
        clears_on=(catalogue.PARTNER_LOWERED, catalogue.CONFIRMED_SAFE),
        reason=reason,
    )


def _device_level(current: str, reason: str) -> tuple[Draft, ...]:
    clears_on = (catalogue.DEVICE_HEALTHY, catalogue.CONFIRMED_SAFE)
    if current in _NO_RISK:
        return (ClearanceDraft(kind=EntityKind.DEVICE, remedy=catalogue.DEVICE_HEALTHY),)
    if current == Level.HIGH.name:
        return (
            DetectionDraft(
                kind=EntityKind.DEVICE,
                name="device_compromised",
                level=Level.HIGH,
                clears_on=clears_on,
                reason=reason,
            ),
        )
    if current == Level.MEDIUM.name:
        return (
            ClearanceDraft(
                kind=EntityKind.DEVICE, remedy=catalogue.DEVICE_HEALTHY, level=Level.MEDIUM
            ),
            DetectionDraft(
                kind=EntityKind.DEVICE,
                name="device_at_risk",
                level=Level.MEDIUM,
                clears_on=clears_on,
                reason=reason,
            ),
        )
    return ()


def _session_level(current: str, reason: str) -> tuple[Draft, ...]:
    if current == Level.HIGH.name:
        return (
            DetectionDraft(
                kind=EntityKind.USER,
                name="session_influenced_user_risk",
                level=Level.MEDIUM,
                clears_on=(catalogue.SESSION_RISK_LOWERED, catalogue.CONFIRMED_SAFE),
                reason=reason,
            ),
        )
    if current in Level.__members__:
        return (ClearanceDraft(kind=EntityKind.USER, remedy=catalogue.SESSION_RISK_LOWERED),)
    return ()


def _credential_change(event: caep.CredentialChange) -> tuple[Draft, ...]:
    remedy = catalogue.credential_changed(event.credential_type)
    # A new key beside the stolen one remedies nothing; a new password replaces the old one.
    if event.change_type == "create" and event.credential_type != catalogue.PASSWORD:
        return ()
    return (ClearanceDraft(kind=EntityKind.USER, remedy=remedy),)


def _assurance_level_change(event: caep.AssuranceLevelChange) -> tuple[Draft, ...]:
    if event.change_direction == "decrease":
        return (_low("assurance_lowered", catalogue.CONFIRMED_SAFE, reason=_reason(event)),)
    return ()


def _session_established(event: caep.SessionEstablished) -> tuple[Draft, ...]:
    return (SessionSeenDraft(acr=event.acr, amr=event.amr),)


def _session_presented(_event: caep.SessionPresented) -> tuple[Draft, ...]:
    return (SessionSeenDraft(),)


def _sessions_over(_event: object) -> tuple[Draft, ...]:
    return (SessionEndDraft(),)


def _credential_compromise(event: risc.CredentialCompromise) -> tuple[Draft, ...]:
    is_password = event.credential_type == catalogue.PASSWORD
    return (
        DetectionDraft(
            kind=EntityKind.USER,
            name="password_compromised" if is_password else "credential_compromised",
            level=Level.HIGH,
            clears_on=(
                catalogue.credential_changed(event.credential_type),
                catalogue.CONFIRMED_SAFE,
            ),
            reason=_reason(event),
        ),
    )


def _account_credential_change_required(
    event: risc.AccountCredentialChangeRequired,
) -> tuple[Draft, ...]:
    return (
        DetectionDraft(
            kind=EntityKind.USER,
            name="credential_change_required",
            level=Level.MEDIUM,
            clears_on=(
                catalogue.credential_changed(catalogue.PASSWORD),
                catalogue.CONFIRMED_SAFE,
            ),
            reason=_reason(event),
        ),
    )


_DISABLED_BECAUSE: Final[Mapping[str | None, tuple[str, Level]]] = MappingProxyType(
    {
        "hijacking": ("account_hijacked", Level.HIGH),
        "bulk-account": ("account_fraudulent", Level.MEDIUM),
    }
)


def _account_disabled(event: risc.AccountDisabled) -> tuple[Draft, ...]:
    name, level = _DISABLED_BECAUSE.get(event.reason, ("account_disabled", Level.LOW))
    return (
        SessionEndDraft(),
        DetectionDraft(
            kind=EntityKind.USER,
            name=name,
            level=level,
            clears_on=(catalogue.ACCOUNT_ENABLED, catalogue.CONFIRMED_SAFE),
            reason=_reason(event),
        ),
    )


def _resource_deactivated(_event: scim.Deactivate) -> tuple[Draft, ...]:
    return (SessionEndDraft(), _low("account_disabled", catalogue.ACCOUNT_ENABLED))


def _account_enabled(_event: object) -> tuple[Draft, ...]:
    return (ClearanceDraft(kind=EntityKind.USER, remedy=catalogue.ACCOUNT_ENABLED),)


def _recovery_activated(event: risc.RecoveryActivated) -> tuple[Draft, ...]:
    return (_low("recovery_activated", reason=_reason(event)),)


def _recovery_information_changed(event: risc.RecoveryInformationChanged) -> tuple[Draft, ...]:
    return (_low("recovery_information_changed", reason=_reason(event)),)


def _low(name: str, *clears_on: str, reason: str = "") -> DetectionDraft:
    remedies = tuple(sorted({*clears_on, catalogue.CONFIRMED_SAFE}))
    return DetectionDraft(
        kind=EntityKind.USER, name=name, level=Level.LOW, clears_on=remedies, reason=reason
    )


def _reason(event: CommonMembers) -> str:
    """Return the reason for administrators, in English when there is one."""
    texts = event.reason_admin or {}
    text = texts.get("en") or next((texts[tag] for tag in sorted(texts)), "")
    return text[:REASON_CHARS_MAX]


_MAPPINGS: Final[Mapping[type, Callable[[Any], tuple[Draft, ...]]]] = MappingProxyType(
    {
        caep.SessionRevoked: _sessions_over,
        caep.CredentialChange: _credential_change,
        caep.AssuranceLevelChange: _assurance_level_change,
        caep.DeviceComplianceChange: _device_compliance_change,
        caep.SessionEstablished: _session_established,
        caep.SessionPresented: _session_presented,
        caep.RiskLevelChange: _risk_level_change,
        risc.AccountCredentialChangeRequired: _account_credential_change_required,
        risc.AccountPurged: _sessions_over,
        risc.AccountDisabled: _account_disabled,
        risc.AccountEnabled: _account_enabled,
        risc.CredentialCompromise: _credential_compromise,
        risc.RecoveryActivated: _recovery_activated,
        risc.RecoveryInformationChanged: _recovery_information_changed,
        risc.SessionsRevoked: _sessions_over,
        scim.Activate: _account_enabled,
        scim.Deactivate: _resource_deactivated,
        scim.Delete: _sessions_over,
        vendor.UserRiskChange: _user_risk_change,
        vendor.DeviceRiskChange: _device_risk_change,
    }
)
