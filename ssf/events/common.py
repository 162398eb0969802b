"""What the event families share: optional members, and lenient reading of them."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ssf.errors import EventError

# 2001-09-09 in milliseconds; in seconds it lies in the year 5138.
MILLISECONDS_ABOVE: Final = 10**11
NUMERIC_DATE_MAX: Final = 253_402_300_799  # the last second of the year 9999


class CommonMembers(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
):
    """The optional members of CAEP events, which other families use as well.

    event_timestamp: seconds since 1970 UTC, when the change took place. initiating_entity: admin,
    user, policy or system; other values are kept as text. reason_admin, reason_user: BCP 47
    language tag to text, never empty. Source: CAEP 1.0 §2; requirements CAEP-1 to CAEP-5.
    """

    event_timestamp: int | float | None = None
    initiating_entity: str | None = None
    reason_admin: dict[str, str] | None = None
    reason_user: dict[str, str] | None = None


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a type we do not know: recorded, never acted on (SET-63)."""

    type_uri: str
    payload: dict[str, Any]


def normalise_common(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Bring members met in the field into the standard's form.

    A null member counts as absent, milliseconds become seconds, a plain reason text becomes
    English. Raises EventError for an event_timestamp that is no time at all.
    Requirements CAEP-1, CAEP-5, CR-20.
    """
    members = {name: value for name, value in payload.items() if value is not None}
    if "event_timestamp" in members:
        members["event_timestamp"] = _seconds(members["event_timestamp"])
    for name in ("reason_admin", "reason_user"):
        reason = members.get(name)
        if isinstance(reason, str):
            members[name] = {"en": reason}
        elif reason == {}:
            del members[name]
    return members


def _seconds(value: object) -> int | float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise EventError("invalid_request", "event_timestamp is no number", requirement="CAEP-1")
    seconds = value / 1000 if value > MILLISECONDS_ABOVE else value
    if not 0 <= seconds <= NUMERIC_DATE_MAX:
        raise EventError("invalid_request", "event_timestamp is out of range", requirement="CAEP-1")
    return int(seconds) if seconds == int(seconds) else seconds
