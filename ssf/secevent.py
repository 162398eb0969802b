"""The Security Event Token: what its claims must be, and how we write them (RFC 8417, SSF 1.0 §4).

The caller has verified the signature before `parse_set`; `peek_issuer` is what it may ask earlier.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ssf.errors import EventError, SETError, SubjectError
from ssf.events.common import NUMERIC_DATE_MAX, CommonMembers, UnknownEvent
from ssf.events.registry import Event, canonical_type_uri, parse_event, render_event
from ssf.events.ssf import STREAM_EVENT_TYPES
from ssf.jose import SET_BYTES_MAX, CompactJWS
from ssf.profile import FINAL, WireProfile, old_subject
from ssf.subject import Subject, parse_subject, render_subject, unprocessable_members

__all__ = [
    "CLOCK_SKEW_S",
    "HOPS_MAX",
    "SET_BYTES_MAX",
    "Expectation",
    "SecurityEventToken",
    "hop_of",
    "parse_set",
    "peek_issuer",
    "peek_jti",
    "render_set",
]

CLOCK_SKEW_S: Final = 300
CLAIM_CHARS_MAX: Final = 1024
#: through how many hubs a relayed event may have come
HOPS_MAX: Final = 8
HOP_CHARS: Final = 22
#: a claim of our own, which others ignore (RFC 7519 §4): digests of the issuers an event came from
HOPS_CLAIM: Final = "urn:signalhub:hops"
AUDIENCES_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What one upstream agreed on with us.

    issuer: exact. audiences: the `aud` values that mean us on this stream. max_age_s: None for no
    limit, because a paused stream holds SETs for long. allowed_event_types: None for all.
    event_aliases: sets of type URIs that name one and the same event type (SET-4, SET-58).
    critical_subject_members: of the transmitter's metadata (SET-60). legacy_subject: also read
    the `subject` inside the event, in the forms of older drafts (SET-10).
    """

    issuer: str
    audiences: frozenset[str]
    clock_skew_s: int = CLOCK_SKEW_S
    max_age_s: int | None = None
    allowed_event_types: frozenset[str] | None = None
    event_aliases: frozenset[frozenset[str]] = frozenset()
    critical_subject_members: frozenset[str] = frozenset()
    legacy_subject: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEventToken:
    """The claims of one SET with one event.

    iat, toe: seconds since 1970 UTC. unprocessable_members: critical members of the subject that
    we cannot interpret; if there are any, acknowledge, record, and do not act (SET-60).
    hops: `hop_of` every issuer that a relayed event came from, the first one first.
    """

    iss: str
    jti: str
    iat: int
    aud: tuple[str, ...]
    txn: str | None = None
    toe: int | None = None
    sub_id: Subject
    event: Event
    event_type: str
    unprocessable_members: frozenset[str] = frozenset()
    hops: tuple[str, ...] = ()

    @property
    def occurred_at_s(self) -> float:
        """Best known time of the event: event_timestamp, else toe, else iat (SET-18)."""
        event = self.event
        if isinstance(event, CommonMembers) and event.event_timestamp is not None:
            return event.event_timestamp
        return self.iat if self.toe is None else self.toe


class _Claims(msgspec.Struct):
    """The claims we read, untyped: each is checked in its turn, so the first failure counts."""

    iss: Any = None
    iat: Any = None
    aud: Any = None
    jti: Any = None
    txn: Any = None
    toe: Any = None
    sub_id: Any = None
    events: Any = None
    hops: Any = msgspec.field(default=None, name=HOPS_CLAIM)
    exp: Any = msgspec.UNSET
    sub: Any = msgspec.UNSET


_decode_claims: Final = msgspec.json.Decoder(_Claims).decode


def peek_issuer(jws: CompactJWS) -> str | None:
    """Read `iss` of a JWS that is not verified yet, only to choose the key; None if unusable.

    Raises nothing for what `split_jws` returned. Requirement SET-53.
    """
    iss = _decode_claims(jws.payload).iss
    return iss if isinstance(iss, str) else None


def peek_jti(jws: CompactJWS) -> str | None:
    """Read `jti` of a JWS that is not verified yet, to compare it with a poll answer's member.

    None if unusable. Raises nothing for what `split_jws` returned.
    """
    jti = _decode_claims(jws.payload).jti
    return jti if isinstance(jti, str) else None


def parse_set(payload: bytes, expect: Expectation, now_s: int) -> SecurityEventToken:
    """Check the claims of a SET whose signature is verified, and read its event.

    payload: a JSON object. now_s: seconds since 1970 UTC. Stops at the first failure.
    Raises SETError with the code of RFC 8935 §2.4 that fits.
    Source: RFC 8417 §2.2, SSF 1.0 §4.1; requirements SET-53, SET-56 to SET-60, SET-63.
    """
    claims = _decode(payload)
    if claims.iss != expect.issuer:
        raise SETError("invalid_issuer", "iss is not the expected issuer", requirement="SET-53")
    iat = _check_iat(claims.iat, expect, now_s)
    aud = _check_aud(claims.aud, expect)
    jti = _check_jti(claims)
    type_uri, event_payload = _choose_event(claims.events, expect)
    subject = _parse_subject(claims, event_payload, expect)
    unprocessable = unprocessable_members(subject, expect.critical_subject_members)
    return SecurityEventToken(
        iss=claims.iss,
        jti=jti,
        iat=iat,
        aud=aud,
        txn=_check_txn(claims.txn),
        toe=_check_toe(claims.toe),
        sub_id=subject,
        # A discarded event is not judged by its payload: it is acknowledged as it is (SET-60).
        event=UnknownEvent(type_uri=type_uri, payload=event_payload)
        if unprocessable
        else _parse_event(type_uri, event_payload),
        event_type=type_uri,
        unprocessable_members=unprocessable,
        hops=_check_hops(claims.hops),
    )


def hop_of(issuer: str) -> str:
    """Return what stands for an issuer among the hops of a relayed event: 22 characters.

    A digest: who knows an issuer recognises it, and it is no list of a customer's vendors for
    everybody to read. Raises nothing. Requirement SSF-SEC-6.
    """
    digest = hashlib.sha256(b"signalhub hop\0" + issuer.encode()).digest()
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def render_set(token: SecurityEventToken, profile: WireProfile = FINAL) -> bytes:
    """Render the claims of a SET, ready to be signed.

    Never with sub, exp or nbf; the subject is `sub_id` at top level, unless the receiver's profile
    wants it inside the event. One audience is a string. Raises nothing.
    Source: SSF 1.0 §4.1; requirements SET-1 to SET-10, SET-15, SET-16.
    """
    claims: dict[str, object] = {
        "iss": token.iss,
        "aud": token.aud[0] if len(token.aud) == 1 else token.aud,
        "iat": token.iat,
        "jti": token.jti,
    }
    if token.txn is not None:
        claims["txn"] = token.txn
    if token.toe is not None:
        claims["toe"] = token.toe
    if token.hops:
        claims[HOPS_CLAIM] = token.hops
    subject, event = render_subject(token.sub_id), render_event(token.event)
    if profile.subject_in_event:
        event = {**event, "subject": old_subject(subject)}
    else:
        claims["sub_id"] = subject
    claims["events"] = {token.event_type: event}
    return msgspec.json.encode(claims)


def _decode(payload: bytes) -> _Claims:
    try:
        return _decode_claims(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise _invalid("the payload is no JSON object", "SET-51") from None


def _check_iat(iat: object, expect: Expectation, now_s: int) -> int:
    if not isinstance(iat, int) or isinstance(iat, bool) or iat < 0:
        raise _invalid("iat is no NumericDate in whole seconds", "SET-56")
    if iat > now_s + expect.clock_skew_s:
        raise _invalid("iat is in the future", "SET-56")
    if expect.max_age_s is not None and iat < now_s - expect.max_age_s - expect.clock_skew_s:
        raise _invalid("iat is too long ago", "SET-56")
    return iat


def _check_aud(aud: object, expect: Expectation) -> tuple[str, ...]:
    if aud is None or aud is msgspec.UNSET:
        raise SETError("invalid_audience", "aud is missing", requirement="SET-57")
    values = [aud] if isinstance(aud, str) else aud
    if (
        not isinstance(values, list)
        or len(values) > AUDIENCES_MAX
        or not all(isinstance(value, str) for value in values)
        or expect.audiences.isdisjoint(values)
    ):
        raise SETError("invalid_audience", "aud does not name this recipient", requirement="SET-57")
    return tuple(values)


def _check_jti(claims: _Claims) -> str:
    # SSF 1.0 §4.1.2, §4.1.7: "The "sub" claim MUST NOT be present", nor "exp".
    if claims.exp is not msgspec.UNSET:
        raise _invalid("exp is not allowed in a SET", "SET-58")
    if claims.sub is not msgspec.UNSET:
        raise _invalid("sub is not allowed in a SET; sub_id names the subject", "SET-58")
    jti = claims.jti
    if not isinstance(jti, str) or not 0 < len(jti) <= CLAIM_CHARS_MAX:
        raise _invalid(f"jti is no string of 1 to {CLAIM_CHARS_MAX} characters", "SET-58")
    return jti


def _choose_event(events: object, expect: Expectation) -> tuple[str, dict[str, Any]]:
    """Return type and payload of the one event, or of the first of a known set of aliases."""
    if not isinstance(events, dict) or not events:
        raise _invalid("events is no object with a member", "SET-58")
    if len(events) > 1 and not any(events.keys() <= aliases for aliases in expect.event_aliases):
        raise _invalid("events has more than one member", "SET-58")
    type_uri, payload = next(iter(events.items()))
    if not 0 < len(type_uri) <= CLAIM_CHARS_MAX:
        raise _invalid("the event type is no acceptable URI", "SET-58")
    if not all(isinstance(value, dict) for value in events.values()):
        raise _invalid("an event payload is a JSON object", "SET-58")
    type_uri = canonical_type_uri(type_uri)
    allowed = expect.allowed_event_types
    if allowed is not None and type_uri not in allowed | STREAM_EVENT_TYPES:
        raise SETError("access_denied", "this event type is not allowed here", requirement="SET-64")
    return type_uri, payload


def _parse_subject(claims: _Claims, payload: Mapping[str, Any], expect: Expectation) -> Subject:
    value = claims.sub_id
    if value is None and expect.legacy_subject:
        value = payload.get("subject")
    if value is None:
        raise _invalid("sub_id is missing", "SET-59")
    try:
        return parse_subject(value, legacy=expect.legacy_subject)
    except SubjectError as cause:
        raise _invalid(f"sub_id: {cause.description}", "SET-59") from cause


def _check_txn(txn: object) -> str | None:
    if txn is None or (isinstance(txn, str) and len(txn) <= CLAIM_CHARS_MAX):
        return txn
    raise _invalid("txn is no acceptable string", "SET-15")


def _check_hops(hops: object) -> tuple[str, ...]:
    """Read our own claim: whoever sends it broken would walk around the loop guard."""
    if hops is None:
        return ()
    if (
        not isinstance(hops, list)
        or len(hops) > HOPS_MAX
        or not all(isinstance(hop, str) and len(hop) == HOP_CHARS for hop in hops)
    ):
        raise _invalid(f"{HOPS_CLAIM} is no list of at most {HOPS_MAX} hops", "SSF-SEC-6")
    return tuple(hops)


def _check_toe(toe: object) -> int | None:
    if toe is None:
        return None
    if (
        isinstance(toe, bool)
        or not isinstance(toe, int | float)
        or not 0 <= toe <= NUMERIC_DATE_MAX
    ):
        raise _invalid("toe is no NumericDate", "SET-16")
    return int(toe)


def _parse_event(type_uri: str, payload: Mapping[str, Any]) -> Event:
    try:
        return parse_event(type_uri, payload)
    except EventError as cause:
        raise _invalid(cause.description, "SET-63") from cause


def _invalid(description: str, requirement: str) -> SETError:
    return SETError("invalid_request", description, requirement=requirement)
