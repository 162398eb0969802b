"""The context of one request, its key, and what changed between two of them. Pure.

Classes of change and what they lead to by default (threat model §2.3)::

    minor                         same /24 or /48, same AS          told only
    network                       same AS                           scored
    asn, country                  another network or country        scored, policies run again
    posture                       a signal of the device changed    scored, policies run again
    device, user_agent, os,       the cookie moved, or the client   at least MEDIUM
    signal_loss, binding_lost     is not what it was
    fork                          two clients use it in turns       at least MEDIUM
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from risk.model import Level

#: what counts as the same network when nobody says which AS an address belongs to
_SITE_BITS: Final = {4: 24, 6: 48}
_REGION_BITS: Final = {4: 16, 6: 32}
#: JA4 is a_b_c: a the protocol, which changes with QUIC; b the ciphers, which are the client's own
_JA4_PARTS: Final = 3


class Change(StrEnum):
    """One class of change. The order of declaration is that of severity, mild ones first."""

    NONE = "none"
    MINOR = "minor"
    NETWORK = "network"
    ASN = "asn"
    COUNTRY = "country"
    POSTURE = "posture"
    SIGNAL_LOSS = "signal_loss"
    USER_AGENT = "user_agent"
    OS = "os"
    DEVICE = "device"
    FORK = "fork"
    BINDING_LOST = "binding_lost"


_ORDER: Final = {change: place for place, change in enumerate(Change)}
#: at least MEDIUM: the session's secret is used by another client than before
SEVERE: Final = frozenset(
    {
        Change.SIGNAL_LOSS,
        Change.USER_AGENT,
        Change.OS,
        Change.DEVICE,
        Change.FORK,
        Change.BINDING_LOST,
    }
)
#: how causes are called where the familiar events of identity providers have names for them
CAUSES: Final[Mapping[Change, str]] = {
    Change.MINOR: "ipAddress.change",
    Change.NETWORK: "ipAddress.change",
    Change.ASN: "ipAddress.change",
    Change.COUNTRY: "ipAddress.change",
}
DEVICE_CAUSE: Final = "deviceContext.change"
#: begins the names of signals that providers report of a device, apart from any request
REPORTED_PREFIX: Final = "reported."
#: the signal that stands for a browser of which only a fingerprint is told
AGENT_FINGERPRINT: Final = "fp_ua"


class NetworkRecord(Protocol):
    """What is known of an address, as far as a change of it is concerned."""

    @property
    def asn(self) -> int | None:
        """Number of the autonomous system."""
        ...

    @property
    def country(self) -> str | None:
        """ISO 3166-1 code."""
        ...


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """What was known of an address when its context was stored: by default nothing."""

    asn: int | None = None
    country: str | None = None


_NOTHING_KNOWN: Final = StoredRecord()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """From where, with what and on which device a session is used. Made by `contexts.parsing`.

    ip: of the client, once the chain was judged. chain: client first. signals: what is known of the
    device's posture, name to value. told_by: the client that tells us. record: what the feeds say
    of `ip`.
    """

    ip: str
    chain: tuple[str, ...] = ()
    user_agent: str = ""
    ua_family: str = ""
    ua_major: int = 0
    os_family: str = ""
    ja4: str = ""
    accept_language: str = ""
    device_token_hash: str = ""
    device_id: str = ""
    signals: Mapping[str, str] = field(default_factory=dict)
    app_id: str = ""
    method: str = ""
    path_class: str = ""
    at: datetime
    told_by: str = ""
    record: NetworkRecord = _NOTHING_KNOWN

    def key(self) -> str:
        """Return what has to stay the same for an answer to stay the same: 32 hex digits.

        The address, its AS and country, the device and its token, family and major version of the
        user agent, JA4, the posture. Equal keys mean that `classify` finds no change.
        """
        parts = (
            self.ip,
            str(self.record.asn or ""),
            self.record.country or "",
            self.device_id,
            self.device_token_hash,
            self.ua_family,
            str(self.ua_major),
            self.os_family,
            self.ja4,
            signals_version(self.signals),
        )
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def signals_version(signals: Mapping[str, str]) -> str:
    """Return a text that is the same for the same signals. Raises nothing."""
    return "\1".join(f"{name}\2{signals[name]}" for name in sorted(signals))


def classify(before: Context, after: Context) -> tuple[Change, ...]:
    """Return the classes of change, the most severe first; (NONE,) when there is none.

    Total: every pair of contexts has an answer. Raises nothing. Source: threat model §2.3.
    """
    found = set(_network_changes(before, after))
    found |= _agent_changes(before, after)
    found |= _device_changes(before, after)
    return ordered(found) or (Change.NONE,)


def nearest(accepted: Iterable[Context], here: Context) -> tuple[Context, tuple[Change, ...]]:
    """Return of at least one accepted context that which `here` differs least from, and how.

    Two callers see different things: what one of them does not tell is no loss. What the same
    caller told before and does not tell now is one. Raises ValueError without any.
    """
    pairs = [(each, classify(each, _as_told(each, here))) for each in accepted]
    return min(pairs, key=lambda pair: [_ORDER[change] for change in pair[1]])


def _as_told(before: Context, here: Context) -> Context:
    if before.told_by == here.told_by:
        return here
    told = {
        name: getattr(here, name) or getattr(before, name)
        for name in ("ja4", "device_token_hash", "device_id")
    }
    if not here.ua_family:
        told |= {name: getattr(before, name) for name in ("ua_family", "ua_major", "os_family")}
    return replace(here, **told, signals={**before.signals, **here.signals})


def ordered(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Return changes by severity, the worst first. Raises nothing."""
    return tuple(sorted(set(changes), key=lambda change: _ORDER[change], reverse=True))


def level_min(changes: Iterable[Change]) -> Level:
    """Return below which level no score may bring these changes. Raises nothing."""
    return Level.LOW if SEVERE.isdisjoint(changes) else Level.MEDIUM


def causes_of(changes: Iterable[Change]) -> tuple[str, ...]:
    """Return the familiar names of the causes: address, device. Raises nothing."""
    named = (CAUSES.get(each, DEVICE_CAUSE) for each in changes if each is not Change.NONE)
    return tuple(dict.fromkeys(named))


def changed_values(before: Context, after: Context) -> tuple[dict[str, str], dict[str, str]]:
    """Return (old, new): the members that differ, as texts for people. Raises nothing."""
    old, new = _shown(before), _shown(after)
    names = [name for name in {**old, **new} if old.get(name, "") != new.get(name, "")]
    return (
        {name: old.get(name, "") for name in names},
        {name: new.get(name, "") for name in names},
    )


def _shown(context: Context) -> dict[str, str]:
    shown = {
        "ip": context.ip,
        "asn": "" if context.record.asn is None else str(context.record.asn),
        "country": context.record.country or "",
        "user_agent": f"{context.ua_family} {context.ua_major}" if context.ua_family else "",
        "os": context.os_family,
        "ja4": context.ja4,
        # Whether it is the same one can be told from the beginning; the token is nobody's business.
        "device_token": context.device_token_hash[:8],
        "device": context.device_id,
    }
    return shown | {f"signals.{name}": value for name, value in context.signals.items()}


def _network_changes(before: Context, after: Context) -> Iterable[Change]:
    if before.record.country != after.record.country and None not in {
        before.record.country,
        after.record.country,
    }:
        yield Change.COUNTRY
    if before.ip == after.ip:
        return
    asns = (before.record.asn, after.record.asn)
    if asns[0] is None or asns[1] is None:
        # Nobody says whose the addresses are: how near they are decides.
        if _within(before.ip, after.ip, _SITE_BITS):
            yield Change.MINOR
        else:
            is_near = _within(before.ip, after.ip, _REGION_BITS)
            yield Change.NETWORK if is_near else Change.ASN
    elif asns[0] != asns[1]:
        yield Change.ASN
    else:
        yield Change.MINOR if _within(before.ip, after.ip, _SITE_BITS) else Change.NETWORK


def _within(one: str, other: str, bits: Mapping[int, int]) -> bool:
    try:
        first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    except ValueError:
        return False
    if first.version != second.version:
        return False
    shift = first.max_prefixlen - bits[first.version]
    return int(first) >> shift == int(second) >> shift


def _agent_changes(before: Context, after: Context) -> set[Change]:
    found: set[Change] = set()
    if before.ua_family and not after.ua_family:
        return {Change.SIGNAL_LOSS}
    if not before.ua_family:
        return found
    if before.os_family != after.os_family:
        found.add(Change.OS)
    # An update raises the version; nobody's browser grows older.
    if before.ua_family != after.ua_family or after.ua_major < before.ua_major:
        found.add(Change.USER_AGENT)
    elif after.ua_major > before.ua_major:
        found.add(Change.MINOR)
    elif ciphers_of(before.ja4) != ciphers_of(after.ja4) and before.ja4 and after.ja4:
        # Same words, another TLS stack: somebody else speaks them.
        found.add(Change.USER_AGENT)
    return found


def ciphers_of(ja4: str) -> str:
    """Return the part of a JA4 that is the client's own and outlives its updates; "" for "".

    What is no JA4 is taken as it is. Raises nothing.
    """
    parts = ja4.split("_")
    return parts[1] if len(parts) == _JA4_PARTS else ja4


def _device_changes(before: Context, after: Context) -> set[Change]:
    found: set[Change] = set()
    tokens = (before.device_token_hash, after.device_token_hash)
    ids = (before.device_id, after.device_id)
    if (all(tokens) and tokens[0] != tokens[1]) or (all(ids) and ids[0] != ids[1]):
        found.add(Change.DEVICE)
    if tokens[0] and not tokens[1]:
        # To leave the token out must not be better than to have a wrong one.
        found.add(Change.SIGNAL_LOSS)
    if _said(before) - _said(after) and _said(after):
        found.add(Change.SIGNAL_LOSS)
    common = before.signals.keys() & after.signals.keys()
    differing = {name for name in common if before.signals[name] != after.signals[name]}
    if AGENT_FINGERPRINT in differing:
        found.add(Change.USER_AGENT)
    if differing - {AGENT_FINGERPRINT}:
        found.add(Change.POSTURE)
    return found


def _said(context: Context) -> set[str]:
    """Return the names of the signals that the caller itself told."""
    return {name for name in context.signals if not name.startswith(REPORTED_PREFIX)}
