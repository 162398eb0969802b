"""What a receiver asks of an existing stream: status, verification, subjects (SSF 1.0 §8.1)."""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from ssf.errors import SubjectError
from ssf.profile import WireProfile
from ssf.stream import (
    StreamStatus,
    WantedStream,
    parse_body,
    refused,
    stream_id_of,
    text_of,
)
from ssf.subject import Subject, parse_subject

REASON_CHARS_MAX: Final = 1000
STATE_CHARS_MAX: Final = 2048
#: audiences that a receiver of an old draft may name: all of them are itself (SET-14)
AUDIENCES_MAX: Final = 5
AUDIENCE_CHARS_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusUpdate:
    """A receiver's wish to change the status of its stream."""

    stream_id: str
    status: StreamStatus
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationRequest:
    """A receiver's wish for a verification event; state comes back in it unchanged."""

    stream_id: str
    state: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectRequest:
    """A subject to add to a stream or to remove from it. verified: by the receiver."""

    stream_id: str
    subject: Subject
    verified: bool = True


def parse_status_update(body: bytes) -> StatusUpdate:
    """Read a status update. Raises StreamError.

    Source: SSF 1.0 §8.1.2.2; requirements SSF-STAT-2, SSF-STAT-7.
    """
    members = parse_body(body, "SSF-STAT-7")
    status = members.get("status")
    if not isinstance(status, str) or status not in set(StreamStatus):
        raise refused("status is none of enabled, paused, disabled", "SSF-STAT-7")
    reason = text_of(members, "reason", "SSF-STAT-7")
    return StatusUpdate(
        stream_id=stream_id_of(members, "SSF-STAT-7"),
        status=StreamStatus(status),
        reason=None if reason is None else reason[:REASON_CHARS_MAX],
    )


def parse_verification_request(body: bytes) -> VerificationRequest:
    """Read a verification request. Raises StreamError.

    Source: SSF 1.0 §8.1.4.2; requirements SSF-VER-1, SSF-VER-3.
    """
    members = parse_body(body, "SSF-VER-1")
    state = text_of(members, "state", "SSF-VER-1")
    if state is not None and len(state) > STATE_CHARS_MAX:
        # Cutting it would break the promise to echo it unchanged.
        raise refused(f"state is longer than {STATE_CHARS_MAX} characters", "SSF-VER-1")
    return VerificationRequest(stream_id=stream_id_of(members, "SSF-VER-1"), state=state)


def parse_subject_request(body: bytes) -> SubjectRequest:
    """Read a request to add or remove a subject. Raises StreamError.

    Source: SSF 1.0 §8.1.3.2, §8.1.3.3; requirements SSF-SUBJ-1 to SSF-SUBJ-4.
    """
    members = parse_body(body, "SSF-SUBJ-4")
    verified = members.get("verified", True)
    if not isinstance(verified, bool):
        raise refused("verified is no boolean", "SSF-SUBJ-4")
    try:
        subject = parse_subject(members.get("subject"))
    except SubjectError as cause:
        raise refused(f"subject: {cause.description}", "SSF-SUBJ-4") from cause
    return SubjectRequest(
        stream_id=stream_id_of(members, "SSF-SUBJ-4"), subject=subject, verified=verified
    )


def as_profile(wanted: WantedStream, profile: WireProfile) -> WantedStream:
    """Return a wish as the receiver's profile lets it wish.

    In the old one `iss` and `aud` are not claims about what is ours. Raises StreamError for the old
    name of a delivery method from a receiver of SSF 1.0. Requirements SSF-DEL-5, OLD-2.
    """
    if wanted.has_old_method and not profile.method_names:
        raise refused("delivery.method is not supported", "SSF-DEL-5")
    if not profile.receiver_names_audience:
        return wanted
    supplied = {
        name: value
        for name, value in wanted.transmitter_supplied.items()
        if name not in {"iss", "aud"}
    }
    return replace(wanted, transmitter_supplied=MappingProxyType(supplied))


def named_audience(wanted: WantedStream, profile: WireProfile) -> tuple[str, ...] | None:
    """Return the audience a receiver of an old draft wants, None for ours to choose.

    Raises StreamError for one that is none. Requirement OLD-1.
    """
    value = wanted.transmitter_supplied.get("aud")
    if value is None or not profile.receiver_names_audience:
        return None
    values = value if isinstance(value, list) else [value]
    if not 0 < len(values) <= AUDIENCES_MAX or not all(
        isinstance(one, str) and 0 < len(one) <= AUDIENCE_CHARS_MAX for one in values
    ):
        raise refused("aud is no string or short array of strings", "SSF-OP-4")
    return tuple(dict.fromkeys(values))
