"""What a provider is, what it may say, and what becomes of what it said. Pure rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from receivers.webhooks.model import WebhookIntake, WebhookSettings, build_intake
from ssf.errors import SETError
from ssf.events.registry import STREAM_EVENT_TYPES
from ssf.jose import DEFAULT_ALGORITHMS
from ssf.jwks import JWKSet, parse_jwks
from ssf.secevent import CLOCK_SKEW_S, Expectation, SecurityEventToken
from ssf.subject import SimpleSubject, Subject, normal_form, simple_members

#: the unique index over issuer and jti must hold both on every engine
JTI_BYTES_MAX: Final = 512
#: users who may become HIGH on one provider's word within an hour, unless an admin says otherwise
HIGH_USERS_PER_HOUR_MAX: Final = 100
LEVELS: Final = ("LOW", "MEDIUM", "HIGH")

_CLOCK_SKEW: Final = timedelta(seconds=CLOCK_SKEW_S)


class ProviderMode(StrEnum):
    """What a provider's word leads to."""

    ENFORCE = "enforce"
    #: assessed and shown, nothing is done about it
    LOG_ONLY = "log_only"
    #: stored, not assessed
    NONE = "none"


class ProviderStatus(StrEnum):
    """Whether a provider may send, and whether it is believed."""

    ACTIVE = "active"
    #: refused at the door
    INACTIVE = "inactive"
    #: accepted and stored, but log_only whatever its mode says
    QUARANTINED = "quarantined"


class SignalState(StrEnum):
    """Where a signal stands."""

    RECEIVED = "received"
    ASSESSED = "assessed"
    #: its subject is not known yet
    UNMATCHED = "unmatched"
    IGNORED = "ignored"
    FAILED = "failed"


class AcceptOutcome(StrEnum):
    """What became of a SET that was not refused; the sender is told the same for both."""

    STORED = "stored"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectScope:
    """About whom a provider may speak.

    domains: exact, lower-case domains of e-mail addresses and `acct:` URIs. issuers: `iss` of
    iss_sub, jwt_id and SAML assertion subjects.
    """

    domains: frozenset[str] = frozenset()
    issuers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """What an admin decides about a provider; see `receivers.settings` for the bounds.

    At most one of jwks_uri and jwks is set; none only where client_id or webhook says how a
    provider speaks without SETs. event_types, subject_scope: None for all. client_id: the OAuth
    client whose risk events are this provider's word. level_cap: the highest level this provider's
    word can lead to, None for no cap. critical_subject_members: of the provider's transmitter
    metadata (SSF 1.0 §7.1). may_revoke: whether it may have users logged out by GTR.
    high_users_per_hour_max: beyond it containments wait for a person. sets_per_s_max: SETs and
    webhooks that one process takes of it, None for any number.
    """

    name: str
    issuer: str
    audiences: tuple[str, ...] = ()
    jwks_uri: str | None = None
    jwks: Mapping[str, object] | None = None
    event_types: frozenset[str] | None = None
    subject_scope: SubjectScope | None = None
    critical_subject_members: frozenset[str] = frozenset()
    algorithms: frozenset[str] = DEFAULT_ALGORITHMS
    level_cap: str | None = None
    source_class: str = "partner"
    mode: ProviderMode = ProviderMode.ENFORCE
    legacy_subject: bool = False
    allow_missing_typ: bool = False
    status: ProviderStatus = ProviderStatus.ACTIVE
    high_users_per_hour_max: int = HIGH_USERS_PER_HOUR_MAX
    sets_per_s_max: int | None = None
    client_id: str | None = None
    webhook: WebhookSettings | None = None
    may_revoke: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A transmitter we receive from, as stored."""

    tenant_id: str
    provider_id: str
    settings: ProviderSettings
    authorization_header_sealed: str | None
    webhook_secrets_sealed: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderProfile:
    """A provider made ready for intake: everything that does not depend on the SET.

    authorization: the Authorization value the provider must send, None when it sends none.
    inline_keys: None when the keys are fetched from `jwks_uri`.
    mode: with the status already taken into account. upstream_id: set when we deal with the
    provider's transmitter actively.
    """

    tenant_id: str
    provider_id: str
    name: str
    issuer: str
    jwks_uri: str | None
    inline_keys: JWKSet | None
    algorithms: frozenset[str]
    allow_missing_typ: bool
    expectation: Expectation
    subject_scope: SubjectScope | None
    mode: ProviderMode
    status: ProviderStatus
    authorization: bytes | None
    level_cap: str | None = None
    client_id: str | None = None
    upstream_id: str | None = None
    webhook: WebhookIntake | None = None
    may_revoke: bool = False
    legacy_subject: bool = False
    sets_per_s_max: int | None = None


def build_profile(
    provider: Provider,
    *,
    authorization_header: str | None,
    upstream_id: str | None = None,
    webhook_secrets: Sequence[str] = (),
) -> ProviderProfile:
    """Make a stored provider ready for intake.

    authorization_header, webhook_secrets: the opened secrets. Raises RemoteProtocolError when the
    stored keys are no JWK Set, and Invalid when a mapping is none; the registration rules both out.
    """
    settings = provider.settings
    keys = settings.jwks
    if keys is None and settings.jwks_uri is None:
        # It sends no SETs: no signature of its can be right.
        keys = {"keys": []}
    return ProviderProfile(
        tenant_id=provider.tenant_id,
        provider_id=provider.provider_id,
        name=settings.name,
        issuer=settings.issuer,
        jwks_uri=settings.jwks_uri,
        inline_keys=None if keys is None else parse_jwks(keys),
        algorithms=settings.algorithms,
        allow_missing_typ=settings.allow_missing_typ,
        expectation=Expectation(
            issuer=settings.issuer,
            audiences=frozenset(settings.audiences),
            allowed_event_types=settings.event_types,
            critical_subject_members=settings.critical_subject_members,
            legacy_subject=settings.legacy_subject,
        ),
        subject_scope=settings.subject_scope,
        mode=effective_mode(settings.mode, settings.status),
        status=settings.status,
        authorization=None if authorization_header is None else authorization_header.encode(),
        level_cap=settings.level_cap,
        client_id=settings.client_id,
        upstream_id=upstream_id,
        may_revoke=settings.may_revoke,
        sets_per_s_max=settings.sets_per_s_max,
        legacy_subject=settings.legacy_subject,
        webhook=None
        if settings.webhook is None
        else build_intake(settings.webhook, webhook_secrets),
    )


def effective_mode(mode: ProviderMode, status: ProviderStatus) -> ProviderMode:
    """Return what the provider's word leads to now: a quarantined one is only listened to."""
    if status is ProviderStatus.ACTIVE or mode is ProviderMode.NONE:
        return mode
    return ProviderMode.LOG_ONLY


def milder_mode(accepted: ProviderMode, present: ProviderMode) -> ProviderMode:
    """Return the mode with less effect: of when the signal was accepted and of now.

    A signal that waited must not gain weight, and must lose it when its provider does.
    """
    order = (ProviderMode.NONE, ProviderMode.LOG_ONLY, ProviderMode.ENFORCE)
    return min(accepted, present, key=order.index)


def check_subject(token: SecurityEventToken, scope: SubjectScope | None) -> None:
    """Refuse a statement about a subject outside the provider's scope.

    Every identifier that belongs to a domain or an issuer must be inside, and at least one must
    belong to one: what nobody can attribute is not in scope. Events about the stream itself pass.
    Raises SETError access_denied. Requirement SET-64.
    """
    if token.event_type not in STREAM_EVENT_TYPES and not is_in_scope(token.sub_id, scope):
        raise SETError(
            "access_denied", "the subject is outside this provider's scope", requirement="SET-64"
        )


def is_in_scope(sub_id: Subject, scope: SubjectScope | None) -> bool:
    """Return whether a provider of this scope may speak about a subject. Raises nothing."""
    if scope is None:
        return True
    verdicts = {_in_scope(simple, scope) for _, simple in simple_members(sub_id)}
    return True in verdicts and False not in verdicts


def _in_scope(simple: SimpleSubject, scope: SubjectScope) -> bool | None:
    """Return whether the identifier is inside; None when it names neither domain nor issuer."""
    match simple.format:
        case "email" | "account":
            return normal_form(simple).rpartition("@")[2] in scope.domains
        case "iss_sub" | "jwt_id":
            return simple.get("iss") in scope.issuers
        case "saml_assertion_id":
            return simple.get("issuer") in scope.issuers
        case _:
            return None


class AcceptedSET(msgspec.Struct, frozen=True, kw_only=True):
    """One verified SET on its way into the inbox; item of the operation ACCEPT.

    sub_id, payload: JSON texts in the standard's present form. They travel as text because JSON
    knows integers that msgpack does not. raw: the compact JWS as it came. hops: as in the SET.
    upstream_id: whose word on its stream this is; no column of the inbox.
    """

    tenant_id: str
    signal_id: str
    provider_id: str
    iss: str
    jti: str
    event_type: str
    sub_id: bytes
    payload: bytes
    txn: str | None
    raw: str
    occurred_at: datetime
    received_at: datetime
    mode: str
    state: str
    detail: str | None
    hops: tuple[str, ...] = ()
    upstream_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSignal:
    """A signal to assess, with what its provider's word is worth."""

    tenant_id: str
    signal_id: str
    provider_id: str
    iss: str
    event_type: str
    jti: str
    sub_id: dict[str, object]
    payload: dict[str, object]
    txn: str | None
    occurred_at: datetime
    received_at: datetime
    source_class: str
    level_cap: str | None
    mode: ProviderMode
    legacy_subject: bool
    hops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalMark:
    """What became of a signal.

    state: one of SignalState. alias_keys: normal forms to wait for when it is unmatched.
    """

    tenant_id: str
    signal_id: str
    state: str
    detail: str | None = None
    alias_keys: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSignal:
    """A signal as admins see it; `raw` stays verifiable evidence (PUSH-19)."""

    tenant_id: str
    signal_id: str
    provider_id: str
    iss: str
    jti: str
    event_type: str
    sub_id: dict[str, object]
    payload: dict[str, object]
    txn: str | None
    raw: str
    occurred_at: datetime
    received_at: datetime
    mode: ProviderMode
    state: SignalState
    detail: str | None
    assessed_at: datetime | None


def first_state(token: SecurityEventToken, mode: ProviderMode) -> tuple[SignalState, str | None]:
    """Return the state a fresh signal starts in, and why if it is not to be assessed.

    Events about the stream are recorded only; a subject with critical members that we cannot
    interpret is acknowledged and discarded. Requirements SET-60, SSF-VER-10.
    """
    if token.event_type in STREAM_EVENT_TYPES:
        return SignalState.IGNORED, "an event about the stream itself"
    if token.unprocessable_members:
        return SignalState.IGNORED, "critical subject members are not understood"
    if mode is ProviderMode.NONE:
        return SignalState.IGNORED, "the provider's mode is none"
    return SignalState.RECEIVED, None


def bounded_occurrence(occurred_at: datetime, received_at: datetime) -> datetime:
    """Return when the event took place, never later than the receiver's clock plus the skew.

    A time far in the future would outlive every later statement about the same subject (SET-18).
    """
    return min(occurred_at, received_at + _CLOCK_SKEW)
