"""What a receiver asks of an existing stream: status, verification, subjects (SSF 1.0 §8.1)."""

from dataclasses import dataclass
from typing import Final

from ssf.errors import SubjectError
from ssf.stream import StreamStatus, parse_body, refused, stream_id_of, text_of
from ssf.subject import Subject, parse_subject

REASON_CHARS_MAX: Final = 1000
STATE_CHARS_MAX: Final = 2048


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
