"""What a claim about an address is, how a batch of them is read, and what they add up to. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import msgspec

from risk.model import Level, SignalMode
from risk.sessions.model import parse_moment
from runtime.errors import Invalid

#: limits of the risk events API (threat model §4.3)
EVENTS_PER_CALL_MAX: Final = 20
MESSAGE_CHARS_MAX: Final = 512
LIFE: Final = timedelta(hours=24)
CALLS_PER_WINDOW_MAX: Final = 30
WINDOW: Final = timedelta(minutes=1)
#: limits of our own
SUBJECTS_PER_EVENT_MAX: Final = 100
LIFE_MAX: Final = timedelta(days=90)
CLOCK_SKEW: Final = timedelta(minutes=5)
IP_CHARS_MAX: Final = 45

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Addresses that mean another machine in every network: a word about one would hit strangers.
_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/3",
        "::/127",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    )
)
_MODES: Final = (SignalMode.NONE, SignalMode.LOG_ONLY, SignalMode.ENFORCE)


class IPClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What one source says of one address; its newest word replaces the one before.

    ip: in normal form. source: the client that said it. mode: of its provider when it was said.
    """

    ip: str
    source: str
    level: int
    message: str
    mode: str
    reported_at: datetime
    expires_at: datetime


class IPReport(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted call of the risk events API; item of the operation REPORT_IPS."""

    tenant_id: str
    client_id: str
    claims: tuple[IPClaim, ...]
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """What the word of a client counts now: that of the provider it is bound to.

    issuer: None for a client that no provider is bound to.
    """

    name: str
    issuer: str | None
    mode: SignalMode
    level_cap: Level | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IPRisk:
    """What claims about one address add up to.

    level: by the sources that are enforced. shadow_level: with those that are only logged, too.
    """

    level: Level = Level.LOW
    shadow_level: Level = Level.LOW
    reasons: tuple[str, ...] = ()
    shadow_reasons: tuple[str, ...] = ()


def normal_ip(text: object, at: str) -> IPAddress:
    """Read an address; an IPv4 address written as IPv6 becomes IPv4. Raises Invalid."""
    if isinstance(text, str) and len(text) <= IP_CHARS_MAX and "%" not in text:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            pass
        else:
            return getattr(address, "ipv4_mapped", None) or address
    raise Invalid("The IP address is not acceptable.", pointers=((at, "an IPv4 or IPv6 address"),))


def is_public(address: IPAddress) -> bool:
    """Return whether the address means the same machine everywhere. Raises nothing."""
    return not any(address in network for network in _NOT_PUBLIC)


def parse_events(
    document: object, *, client_id: str, mode: SignalMode, now: datetime
) -> tuple[IPClaim, ...]:
    """Read the body of the risk events API; the last word about an address comes last.

    document: an array of `{timestamp, expiresAt?, subjects: [{ip, riskLevel, message?}]}`.
    Raises Invalid with pointers. Source: threat model §4.3.
    """
    if not isinstance(document, list):
        raise _invalid("", "an array of events")
    if not 0 < len(document) <= EVENTS_PER_CALL_MAX:
        raise _invalid("", f"1 to {EVENTS_PER_CALL_MAX} events")
    claims: list[IPClaim] = []
    for place, event in enumerate(document):
        at = f"/{place}"
        members = _object(event, at, {"timestamp", "expiresAt", "subjects"})
        reported_at, expires_at = _period(members, at, now)
        subjects = members.get("subjects")
        if not isinstance(subjects, list) or not 0 < len(subjects) <= SUBJECTS_PER_EVENT_MAX:
            raise _invalid(f"{at}/subjects", f"an array of 1 to {SUBJECTS_PER_EVENT_MAX} subjects")
        for number, subject in enumerate(subjects):
            below = f"{at}/subjects/{number}"
            ip, level, message = _subject(subject, below)
            claims.append(
                IPClaim(
                    ip=ip,
                    source=client_id,
                    level=level.value,
                    message=message,
                    mode=mode.value,
                    reported_at=reported_at,
                    expires_at=expires_at,
                )
            )
    return tuple(sorted(claims, key=lambda claim: (claim.reported_at, claim.level)))


def judge_ip(
    claims: Iterable[IPClaim], reporters: Mapping[str, Reporter], *, now: datetime
) -> IPRisk:
    """Return what the claims about one address add up to.

    reporters: by source, as they are now; a claim counts in the milder of its mode then and now.
    Raises nothing.
    """
    level = shadow = Level.LOW
    reasons: list[str] = []
    shadow_reasons: list[str] = []
    for claim in sorted(claims, key=lambda each: (-each.level, each.source)):
        reporter = reporters[claim.source]
        mode = weight_of(claim, reporter)
        said = Level(claim.level)
        counted = min(said, reporter.level_cap) if reporter.level_cap else said
        if claim.expires_at <= now or mode is SignalMode.NONE or counted is Level.LOW:
            continue
        reason = f"ip_reported_{counted.name.lower()}:{reporter.name}"
        shadow = max(shadow, counted)
        shadow_reasons.append(reason)
        if mode is SignalMode.ENFORCE:
            level = max(level, counted)
            reasons.append(reason)
    return IPRisk(
        level=level,
        shadow_level=shadow,
        reasons=tuple(reasons),
        shadow_reasons=tuple(shadow_reasons),
    )


def weight_of(claim: IPClaim, reporter: Reporter) -> SignalMode:
    """Return how a claim counts: in the milder mode of when it was made and of now."""
    return min(SignalMode(claim.mode), reporter.mode, key=_MODES.index)


def render_claims(
    address: IPAddress,
    claims: Sequence[IPClaim],
    reporters: Mapping[str, Reporter],
    *,
    now: datetime,
) -> dict[str, Any]:
    """Return who says what of an address, as it is shown. Raises nothing."""
    judged = judge_ip(claims, reporters, now=now)
    return {
        "ip": str(address),
        "public": is_public(address),
        "level": judged.level.name,
        "would_be_level": judged.shadow_level.name,
        "claims": [
            {
                "source": reporters[claim.source].name,
                "issuer": reporters[claim.source].issuer,
                "client_id": claim.source,
                "level": Level(claim.level).name,
                "message": claim.message,
                "mode": weight_of(claim, reporters[claim.source]).value,
                "timestamp": claim.reported_at,
                "expires_at": claim.expires_at,
            }
            for claim in claims
            if claim.expires_at > now
        ],
    }


def _period(members: Mapping[str, object], at: str, now: datetime) -> tuple[datetime, datetime]:
    reported_at = parse_moment(members.get("timestamp"), f"{at}/timestamp")
    if reported_at is None:
        raise _invalid(f"{at}/timestamp", "when it was seen, RFC 3339")
    if reported_at > now + CLOCK_SKEW:
        raise _invalid(f"{at}/timestamp", "not in the future")
    expires_at = parse_moment(members.get("expiresAt"), f"{at}/expiresAt")
    if expires_at is None:
        return reported_at, reported_at + LIFE
    if not reported_at < expires_at <= now + LIFE_MAX:
        raise _invalid(f"{at}/expiresAt", f"after timestamp, at most {LIFE_MAX.days} days from now")
    return reported_at, expires_at


def _subject(subject: object, at: str) -> tuple[str, Level, str]:
    members = _object(subject, at, {"ip", "riskLevel", "message"})
    address = normal_ip(members.get("ip"), f"{at}/ip")
    if not is_public(address):
        raise _invalid(f"{at}/ip", "a public address; a private one is another machine elsewhere")
    named = members.get("riskLevel")
    if not isinstance(named, str) or named not in Level.__members__:
        raise _invalid(f"{at}/riskLevel", f"one of {', '.join(Level.__members__)}")
    message = members.get("message", "")
    if message is None:
        message = ""
    if not isinstance(message, str) or len(message) > MESSAGE_CHARS_MAX:
        raise _invalid(f"{at}/message", f"at most {MESSAGE_CHARS_MAX} characters")
    return str(address), Level[named], message


def _object(value: object, at: str, names: set[str]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _invalid(at, "an object")
    if unknown := sorted(set(value) - names):
        raise _invalid(f"{at}/{unknown[0][:64]}", "unknown member")
    return value


def _invalid(at: str, wanted: str) -> Invalid:
    return Invalid("The risk events are not acceptable.", pointers=((at or "/", wanted),))
