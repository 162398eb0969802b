"""From an event type URI to its class, and between payloads and typed events."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias, get_args

import msgspec

from ssf.errors import EventError
from ssf.events.caep import CAEP_BASE, CAEPEvent, TokenClaimsChange
from ssf.events.common import UnknownEvent, normalise_common
from ssf.events.risc import RISC_BASE, RISCEvent
from ssf.events.scim import SCIM_BASE, SCIMEvent
from ssf.events.ssf import SSF_BASE, STREAM_EVENT_TYPES, SSFEvent
from ssf.events.vendor import OKTA_BASE, VendorEvent

__all__ = [
    "CAEP_BASE",
    "EVENT_TYPES",
    "OKTA_BASE",
    "RISC_BASE",
    "SCIM_BASE",
    "SSF_BASE",
    "STANDARD_EVENT_TYPES",
    "STREAM_EVENT_TYPES",
    "Event",
    "KnownEvent",
    "UnknownEvent",
    "canonical_type_uri",
    "parse_event",
    "render_event",
]

KnownEvent: TypeAlias = SSFEvent | CAEPEvent | RISCEvent | SCIMEvent | VendorEvent
Event: TypeAlias = KnownEvent | UnknownEvent


def _by_uri(*families: Any) -> Mapping[str, type[KnownEvent]]:
    return MappingProxyType(
        {member.type_uri: member for family in families for member in get_args(family)}
    )


_STANDARD: Final = _by_uri(SSFEvent, CAEPEvent, RISCEvent, SCIMEvent)
STANDARD_EVENT_TYPES: Final = frozenset(_STANDARD)
EVENT_TYPES: Final[Mapping[str, type[KnownEvent]]] = MappingProxyType(
    {**_STANDARD, **_by_uri(VendorEvent)}
)


def canonical_type_uri(type_uri: str) -> str:
    """Return the registered spelling: SCIM URNs compare without case, all others exactly.

    Raises nothing. Requirement SCIM-1.
    """
    lowered = type_uri.lower()
    return lowered if lowered.startswith(SCIM_BASE) else type_uri


def parse_event(type_uri: str, payload: Mapping[str, Any]) -> Event:
    """Read the payload of one event.

    Lenient where the field is: values outside a closed list are kept as text, unknown members are
    ignored, and the forms of `normalise_common` are read. A type we do not know gives UnknownEvent.
    Raises EventError when a required member is missing or a member has the wrong type.
    Requirements SET-63, CAEP-5, CR-20.
    """
    type_uri = canonical_type_uri(type_uri)
    event_class = EVENT_TYPES.get(type_uri)
    if event_class is None:
        return UnknownEvent(type_uri=type_uri, payload=dict(payload))
    members = normalise_common(payload)
    _check_one_of_full_and_notice(type_uri, members)
    try:
        event = msgspec.convert(members, event_class)
    except msgspec.ValidationError as cause:
        raise _broken(f"the {_short_name(type_uri)} event: {cause}") from None
    if isinstance(event, TokenClaimsChange) and not event.claims:
        raise _broken("the token-claims-change event: claims is empty", "CAEP-11")
    return event


def render_event(event: Event) -> dict[str, Any]:
    """Render the payload of an event as plain JSON values, without members that are None.

    Raises nothing.
    """
    if isinstance(event, UnknownEvent):
        return dict(event.payload)
    rendered: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(event))
    return rendered


def _check_one_of_full_and_notice(type_uri: str, members: Mapping[str, Any]) -> None:
    if type_uri.startswith(SCIM_BASE) and {"data", "attributes"} <= members.keys():
        raise _broken("a SCIM event holds data or attributes, never both", "SCIM-3")


def _short_name(type_uri: str) -> str:
    return type_uri.removeprefix(SCIM_BASE).rpartition("/")[2]


def _broken(description: str, requirement: str = "SET-63") -> EventError:
    return EventError("invalid_request", description, requirement=requirement)
