"""How the wire looks to receivers of SSF 1.0, and to those that still speak an older draft.

A profile is data: what differs is a member here, and one place reads it. The old form is that of
the Shared Signals and Events framework (Implementer's Draft 1, 2021) as the transmitters send it
that name Apple Business Manager as their receiver: Keycloak (`SSE_CAEP`) and authentik.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

__all__ = [
    "FINAL",
    "OLD_METHODS",
    "OLD_WELL_KNOWN_PATH",
    "PROFILES",
    "SSE",
    "WireProfile",
    "old_subject",
    "profile_of",
]

#: delivery methods by the names that drafts gave them (OLD-2)
OLD_METHODS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "https://schemas.openid.net/secevent/risc/delivery-method/push": "urn:ietf:rfc:8935",
        "https://schemas.openid.net/secevent/risc/delivery-method/poll": "urn:ietf:rfc:8936",
    }
)
#: where drafts had the metadata (OLD-1)
OLD_WELL_KNOWN_PATH: Final = "/.well-known/sse-configuration"
#: simple subjects that name something else than a user, and so are not put under `user`
_NO_USERS: Final = frozenset({"jwt_id", "saml_assertion_id", "ip-addresses"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WireProfile:
    """One way to speak to a receiver.

    subject_in_event: the subject is `subject` inside the event, and there is no `sub_id`.
    method_names: names of delivery methods that are shown instead of the URNs; they are taken, too.
    receiver_names_audience: a create request may say which `aud` the receiver wants, and in which
    `format` it wants subjects. audience_is_array: `aud` of a stream is one even with one value.
    verifies_new_streams: a verification event goes out as soon as a stream is there.
    has_one_stream: the receiver need not name its stream in a query, as long as it has one.
    """

    name: str
    subject_in_event: bool = False
    method_names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    receiver_names_audience: bool = False
    audience_is_array: bool = False
    verifies_new_streams: bool = False
    has_one_stream: bool = False

    def method_name(self, urn: str) -> str:
        """Return what a delivery method is called. Raises nothing."""
        return self.method_names.get(urn, urn)


FINAL: Final = WireProfile(name="final")
SSE: Final = WireProfile(
    name="sse",
    subject_in_event=True,
    method_names=MappingProxyType({urn: uri for uri, urn in OLD_METHODS.items()}),
    receiver_names_audience=True,
    audience_is_array=True,
    verifies_new_streams=True,
    has_one_stream=True,
)
PROFILES: Final[Mapping[str, WireProfile]] = MappingProxyType(
    {one.name: one for one in (FINAL, SSE)}
)


def profile_of(name: str) -> WireProfile:
    """Return the profile of a name; an unknown one is SSF 1.0. Raises nothing."""
    return PROFILES.get(name, FINAL)


def old_subject(subject: Mapping[str, Any]) -> dict[str, Any]:
    """Return a subject as drafts had it inside the event.

    A complex subject loses its `format`; a simple one becomes the `user` of such a one, unless it
    names no user. Raises nothing. Source: SSE Implementer's Draft 1 §3; requirement SET-10.
    """
    if subject.get("format") == "complex":
        return {name: value for name, value in subject.items() if name != "format"}
    return dict(subject) if subject.get("format") in _NO_USERS else {"user": dict(subject)}
