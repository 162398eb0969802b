"""Poll delivery (RFC 8936): the messages of both roles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from ssf.errors import PollError
from ssf.strict_json import parse_object

REQUEST_BYTES_MAX: Final = 2 * 1024 * 1024
RESPONSE_BYTES_MAX: Final = 16 * 1024 * 1024
ACKS_MAX: Final = 10_000
SETS_MAX: Final = 10_000
MAX_EVENTS_MAX: Final = 10_000  # larger wishes are cut to this
JTI_CHARS_MAX: Final = 1024
ERR_CHARS_MAX: Final = 100
DESCRIPTION_CHARS_MAX: Final = 1000


class ReportedError(NamedTuple):
    """Why a receiver could not accept a SET. err: a code of RFC 8935 §2.4."""

    err: str
    description: str


_NO_ERRORS: Final[Mapping[str, ReportedError]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRequest:
    """What a poller asks and reports.

    max_events: None for no wish, 0 to acknowledge only. return_immediately: False is a long poll.
    ack: jtis of SETs received and stored. set_errs: jti to the reason of refusal.
    """

    max_events: int | None = None
    return_immediately: bool = False
    ack: tuple[str, ...] = ()
    set_errs: Mapping[str, ReportedError] = field(default_factory=lambda: _NO_ERRORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PollResponse:
    """What a transmitter handed out. sets: jti to compact SET, in the order of the message."""

    sets: Mapping[str, str]
    more_available: bool


def parse_request(body: bytes) -> PollRequest:
    """Read a poll request.

    body: at most REQUEST_BYTES_MAX; empty means `{}`. Unknown members are ignored; a jti that we
    could never have issued (too long) is left out, as unknown ones are later.
    Raises PollError, to be answered 400.
    Source: RFC 8936 §2.2; requirements POLL-3, POLL-5, POLL-24.
    """
    members = parse_object(body or b"{}", bytes_max=REQUEST_BYTES_MAX, error=_bad_request)
    return PollRequest(
        max_events=_max_events(members),
        return_immediately=_flag(members, "returnImmediately", _bad_request),
        ack=_acks(members),
        set_errs=_set_errs(members),
    )


def render_request(request: PollRequest) -> bytes:
    """Render a poll request; the caller adds `Content-Language: en` when it reports errors.

    Raises nothing. Source: RFC 8936 §2.2; requirements POLL-1, POLL-5, POLL-18.
    """
    members: dict[str, object] = {"returnImmediately": request.return_immediately}
    if request.max_events is not None:
        members["maxEvents"] = request.max_events
    if request.ack:
        members["ack"] = request.ack
    if request.set_errs:
        members["setErrs"] = {jti: error._asdict() for jti, error in request.set_errs.items()}
    return msgspec.json.encode(members)


def parse_response(body: bytes) -> PollResponse:
    """Read the answer to a poll.

    body: at most RESPONSE_BYTES_MAX and SETS_MAX SETs. Raises PollError.
    Source: RFC 8936 §2.3; requirements POLL-8, POLL-9.
    """
    members = parse_object(body, bytes_max=RESPONSE_BYTES_MAX, error=_bad_response)
    sets = members.get("sets")
    if not isinstance(sets, dict) or len(sets) > SETS_MAX:
        raise _bad_response(f"sets is no object of at most {SETS_MAX} members")
    if not all(isinstance(value, str) for value in sets.values()):
        raise _bad_response("a member of sets is no string")
    return PollResponse(
        sets=MappingProxyType(sets),
        more_available=_flag(members, "moreAvailable", _bad_response),
    )


def render_response(sets: Mapping[str, str], *, more_available: bool) -> bytes:
    """Render the answer to a poll. sets: jti to compact SET, oldest first.

    Raises nothing. Source: RFC 8936 §2.3; requirements POLL-8, POLL-9.
    """
    members: dict[str, object] = {"sets": dict(sets)}
    if more_available:
        members["moreAvailable"] = True
    return msgspec.json.encode(members)


def _max_events(members: Mapping[str, Any]) -> int | None:
    if "maxEvents" not in members:
        return None
    value = members["maxEvents"]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _bad_request("maxEvents is no integer of 0 or more")
    return min(value, MAX_EVENTS_MAX)


def _flag(members: Mapping[str, Any], name: str, error: Callable[[str], PollError]) -> bool:
    value = members.get(name, False)
    if not isinstance(value, bool):
        raise error(f"{name} is no boolean")
    return value


def _acks(members: Mapping[str, Any]) -> tuple[str, ...]:
    value = members.get("ack", [])
    if not isinstance(value, list) or len(value) > ACKS_MAX:
        raise _bad_request(f"ack is no array of at most {ACKS_MAX} members")
    if not all(isinstance(jti, str) for jti in value):
        raise _bad_request("a member of ack is no string")
    return tuple(jti for jti in value if len(jti) <= JTI_CHARS_MAX)


def _set_errs(members: Mapping[str, Any]) -> Mapping[str, ReportedError]:
    value = members.get("setErrs", {})
    if not isinstance(value, dict) or len(value) > ACKS_MAX:
        raise _bad_request(f"setErrs is no object of at most {ACKS_MAX} members")
    reported = {jti: _reported(error) for jti, error in value.items()}
    return MappingProxyType(
        {jti: error for jti, error in reported.items() if len(jti) <= JTI_CHARS_MAX}
    )


def _reported(value: object) -> ReportedError:
    if not isinstance(value, dict):
        raise _bad_request("a member of setErrs is no object")
    err, description = value.get("err"), value.get("description", "")
    if not isinstance(err, str) or not isinstance(description, str):
        raise _bad_request("a member of setErrs has no err, or one that is no string")
    return ReportedError(err[:ERR_CHARS_MAX], description[:DESCRIPTION_CHARS_MAX])


def _bad_request(description: str) -> PollError:
    return PollError("invalid_request", f"poll request: {description}", requirement="POLL-24")


def _bad_response(description: str) -> PollError:
    return PollError("invalid_response", f"poll answer: {description}", requirement="POLL-8")
