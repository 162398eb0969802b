"""What is relayed, whereto, and under which `txn`. Pure rules."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from risk.model import Signal, SignalMode
from ssf.events.registry import STANDARD_EVENT_TYPES, STREAM_EVENT_TYPES
from ssf.secevent import HOPS_MAX, hop_of
from ssf.subject import ComplexSubject, render_subject
from transmitters.model import Stream

RULES_MAX: Final = 100
ENTRIES_MAX: Final = 1_000
POSITION_MAX: Final = 1_000_000
NAME_CHARS_MAX: Final = 100
TXN_BYTES: Final = 16
TXN_PREFIX: Final = "txn_"
#: how a `txn` of ours may begin: a cause, a containment, an event, a change of level by time
TXN_PREFIXES: Final = (TXN_PREFIX, "ctn_", "evt_", "chg_")


class RelayMode(StrEnum):
    """What a rule leads to."""

    #: recorded, nothing is sent
    MONITOR = "monitor"
    ENFORCE = "enforce"


class Unresolved(StrEnum):
    """What becomes of an event whose user we do not know."""

    #: relayed when the user appears
    HOLD = "hold"
    #: relayed at once, with the subject as it came
    VERBATIM = "verbatim"


class RelayOutcome(StrEnum):
    """What became of one signal under one rule."""

    RELAYED = "relayed"
    MONITORED = "monitored"
    #: the user is not known yet
    UNRESOLVED = "unresolved"
    #: no stream takes it
    UNWANTED = "unwanted"
    #: it came through HOPS_MAX hubs already
    TOO_FAR = "too_far"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRule:
    """One rule. The lower position counts first; for each stream the first rule decides.

    providers, event_types, streams, apps: None for all. Vendors' private types go out only where
    they are named. streams and apps together: the streams named and those of the apps named.
    to_provider: also to streams of the party that the event came from.
    """

    tenant_id: str
    rule_id: str
    name: str
    position: int
    providers: frozenset[str] | None
    event_types: frozenset[str] | None
    streams: frozenset[str] | None
    apps: frozenset[str] | None
    unresolved: Unresolved
    mode: RelayMode
    to_provider: bool
    created_at: datetime
    updated_at: datetime

    def takes(self, provider_id: str, event_type: str) -> bool:
        """Return whether the rule is about such an event. Raises nothing."""
        if event_type in STREAM_EVENT_TYPES:
            # A verification of the upstream's stream means nothing on another stream.
            return False
        if self.providers is not None and provider_id not in self.providers:
            return False
        if self.event_types is None:
            return event_type in STANDARD_EVENT_TYPES
        return event_type in self.event_types

    def names(self, stream: Stream) -> bool:
        """Return whether the rule is about this stream. Raises nothing."""
        if self.streams is None and self.apps is None:
            return True
        return stream.stream_id in (self.streams or ()) or (
            stream.app_id is not None and stream.app_id in (self.apps or ())
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRecord:
    """What became of a signal under a rule; upstream's ids are kept for audit (SET-15).

    txn: ours. streams: who got it, ascending.
    """

    tenant_id: str
    signal_id: str
    rule_id: str
    outcome: RelayOutcome
    upstream_iss: str
    upstream_jti: str
    upstream_txn: str | None
    txn: str
    streams: tuple[str, ...]
    at: datetime


def own_txn(tenant_id: str, iss: str, cause: str) -> str:
    """Return the `txn` of everything we publish because of one upstream cause.

    cause: the upstream's `txn`, else its `jti`. The same cause gives the same text, and nobody
    reads the upstream's out of it. Raises nothing. Requirement SET-15.
    """
    digest = hashlib.sha256(f"{tenant_id}\0{iss}\0{cause}".encode()).digest()
    return TXN_PREFIX + base64.urlsafe_b64encode(digest[:TXN_BYTES]).rstrip(b"=").decode()


def is_echo(*, own_issuer: str, iss: str, hops: Collection[str]) -> bool:
    """Return whether an event is one of our own that came back.

    It has been assessed and relayed once; counted again it would confirm itself. Raises nothing.
    Requirement SSF-SEC-6.
    """
    return iss == own_issuer or hop_of(own_issuer) in hops


def may_relay(signal: Signal) -> bool:
    """Return whether the provider's word leads to anything: a quarantined one's does not."""
    return signal.mode is SignalMode.ENFORCE


def is_too_far(hops: Sequence[str]) -> bool:
    """Return whether there is no room for one more hop. Raises nothing."""
    return len(hops) >= HOPS_MAX


def subjects_of(
    signal: Signal, identifiers: Sequence[Mapping[str, object]]
) -> tuple[Mapping[str, object], ...]:
    """Return what streams choose their subject from.

    identifiers: of the resolved user, empty when nobody is known; then the subject is as it came.
    A stream that asks for complex subjects gets the user with the device, if one was named.
    Raises nothing. Requirements SUB-24, SUB-35.
    """
    if not identifiers:
        return (render_subject(signal.sub_id),)
    if not isinstance(signal.sub_id, ComplexSubject):
        return tuple(identifiers)
    came = render_subject(signal.sub_id)
    if "device" not in came:
        return tuple(identifiers)
    both = {"format": "complex", "user": identifiers[0], "device": came["device"]}
    return (*identifiers, both)


def is_of_party(stream: Stream, issuer: str, app_issuers: Mapping[str, str]) -> bool:
    """Return whether a stream leads back to the party that `issuer` stands for.

    Told by the address it is pushed to, by its audience, or by the issuer of its app.
    app_issuers: by app id. Raises nothing.
    """
    root = issuer.rstrip("/")
    endpoint = stream.endpoint_url or ""
    return (
        endpoint.startswith(root + "/")
        or issuer in stream.aud
        or (stream.app_id is not None and app_issuers.get(stream.app_id) == issuer)
    )


def chooser(
    rule: RelayRule,
    *,
    before: Iterable[RelayRule],
    served: Collection[str],
    is_back: Callable[[Stream], bool],
) -> Callable[[Stream], bool]:
    """Return which streams get an event under a rule.

    before: rules that came first, whose streams they have decided about. served: streams that have
    it already. is_back: whether a stream leads back to where the event came from. Raises nothing.
    """
    earlier = tuple(before)

    def accepts(stream: Stream) -> bool:
        return (
            rule.names(stream)
            and stream.stream_id not in served
            and not any(one.names(stream) for one in earlier)
            and (rule.to_provider or not is_back(stream))
        )

    return accepts
