"""Which of a user's identifiers an app understands. Pure.

Identifiers are RFC 9493 objects; formats are tried in the order the app lists them (GTR-12), and
an app is only ever told identifiers of formats it was registered with (SUB-24).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

Identifier = Mapping[str, object]

#: the member that names the user, by format; these formats can be used towards apps
NAMING_MEMBER: Final = MappingProxyType(
    {
        "email": "email",
        "iss_sub": "sub",
        "opaque": "id",
        "phone_number": "phone_number",
        "account": "uri",
        "uri": "uri",
        "did": "url",
    }
)

#: formats that can give the value of a SCIM attribute, best first
SCIM_ATTRIBUTE_FORMATS: Final = MappingProxyType(
    {
        "userName": ("email", "iss_sub", "opaque"),
        "emails.value": ("email",),
        "externalId": ("iss_sub", "opaque"),
        "id": ("iss_sub", "opaque"),
    }
)


def find_identifier(
    identifiers: Sequence[Identifier], subject_format: str, *, issuer: str | None
) -> Identifier | None:
    """Return the user's first identifier of a format, or None.

    issuer: for `iss_sub`, whose users the app knows; None takes any. Raises nothing.
    """
    member = NAMING_MEMBER.get(subject_format)
    for identifier in identifiers:
        if member is None or identifier.get("format") != subject_format:
            continue
        if not _is_text(identifier.get(member)):
            continue
        if subject_format == "iss_sub" and not _is_of(identifier, issuer):
            continue
        return identifier
    return None


def next_subject(
    identifiers: Sequence[Identifier],
    formats: Sequence[str],
    *,
    start: int,
    issuer: str | None,
) -> tuple[int, Identifier] | None:
    """Return the first usable (index into formats, identifier) at or after `start`, or None.

    Raises nothing. Requirements GTR-12, GTR-24.
    """
    for index in range(max(start, 0), len(formats)):
        identifier = find_identifier(identifiers, formats[index], issuer=issuer)
        if identifier is not None:
            return index, identifier
    return None


def naming_value(identifier: Identifier) -> str | None:
    """Return the text that names the user inside its format, such as `sub` of `iss_sub`."""
    member = NAMING_MEMBER.get(str(identifier.get("format")))
    value = identifier.get(member) if member else None
    return value if isinstance(value, str) and value else None


def scim_value(
    identifiers: Sequence[Identifier], attribute: str, *, issuer: str | None
) -> str | None:
    """Return what to look the user up by in a SCIM server, or None when the user has no such.

    attribute: a key of SCIM_ATTRIBUTE_FORMATS. Raises nothing. Requirement SCC-3.
    """
    formats = SCIM_ATTRIBUTE_FORMATS.get(attribute, ())
    found = next_subject(identifiers, formats, start=0, issuer=issuer)
    return naming_value(found[1]) if found else None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_of(identifier: Identifier, issuer: str | None) -> bool:
    iss = identifier.get("iss")
    return _is_text(iss) and (issuer is None or iss == issuer)
