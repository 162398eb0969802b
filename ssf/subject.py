"""Subject identifiers: parsing, rendering, normal forms and matching (RFC 9493, SSF 1.0 §3).

A subject is simple, aliases (several names of one principal) or complex (several members that
together narrow down one principal). Members of unknown formats are kept as they came.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from ssf.subject_formats import (
    IDENTIFIERS_MAX,
    MEMBERS_MAX,
    MemberValue,
    SimpleSubject,
    VerbatimJSON,
    check_storable,
    malformed,
    normal_form,
    render_simple,
    simple_subject,
)

__all__ = [
    "AliasesSubject",
    "ComplexSubject",
    "MemberValue",
    "SimpleSubject",
    "Subject",
    "VerbatimJSON",
    "complex_subject",
    "email",
    "iss_sub",
    "matches",
    "normal_form",
    "opaque",
    "parse_subject",
    "phone_number",
    "render_subject",
    "simple_members",
    "unprocessable_members",
]

FORMAT_CHARS_MAX: Final = 128

COMPLEX_MEMBER_NAMES: Final = frozenset(
    {"user", "device", "session", "application", "tenant", "org_unit", "group"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasesSubject:
    """Several identifiers of the same principal (SUB-8)."""

    identifiers: tuple[SimpleSubject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComplexSubject:
    """Named members that describe one principal together (SUB-30, SUB-31); sorted by name."""

    members: tuple[tuple[str, SimpleSubject | AliasesSubject], ...]


Subject: TypeAlias = SimpleSubject | AliasesSubject | ComplexSubject


def email(address: str) -> SimpleSubject:
    """Make an email subject. Raises SubjectError."""
    return _constructed("email", {"email": address})


def iss_sub(iss: str, sub: str) -> SimpleSubject:
    """Make an iss_sub subject. Raises SubjectError."""
    return _constructed("iss_sub", {"iss": iss, "sub": sub})


def opaque(identifier: str) -> SimpleSubject:
    """Make an opaque subject, such as the one of a stream. Raises SubjectError."""
    return _constructed("opaque", {"id": identifier})


def phone_number(number: str) -> SimpleSubject:
    """Make a phone_number subject. Raises SubjectError."""
    return _constructed("phone_number", {"phone_number": number})


def complex_subject(**members: SimpleSubject | AliasesSubject) -> ComplexSubject:
    """Make a complex subject. Raises SubjectError when it has no member."""
    return _complex(members)


def parse_subject(obj: object, *, legacy: bool = False) -> Subject:
    """Read a subject identifier.

    obj: a decoded JSON value. Unknown formats are kept verbatim; unknown extra members of known
    formats are ignored. legacy: also read the names of older drafts (`subject_type`, `phone`,
    `iss-sub`, and members without any `format`, which make a complex subject).
    Raises SubjectError. Source: RFC 9493 §3, SSF 1.0 §3; requirements SUB-1 to SUB-13, SUB-25,
    SUB-30, SET-59.
    """
    check_storable(obj)
    name, members = _read(obj, legacy=legacy)
    if name == "complex":
        return _parse_complex(members, legacy=legacy)
    return _parse_principal(name, members, legacy=legacy)


def render_subject(subject: Subject) -> dict[str, object]:
    """Render a subject as a JSON object. Raises nothing. Requirement SET-9."""
    if isinstance(subject, SimpleSubject):
        return render_simple(subject)
    if isinstance(subject, AliasesSubject):
        identifiers = [render_subject(identifier) for identifier in subject.identifiers]
        return {"format": "aliases", "identifiers": identifiers}
    return {"format": "complex"} | {
        name: render_subject(member) for name, member in subject.members
    }


def simple_members(subject: Subject) -> tuple[tuple[str | None, SimpleSubject], ...]:
    """List every simple subject inside, with the name of the complex member it belongs to.

    Simple and aliases subjects have the name None. Raises nothing. Requirement SUB-32.
    """
    if isinstance(subject, ComplexSubject):
        return tuple(
            (name, simple)
            for name, member in subject.members
            for _, simple in simple_members(member)
        )
    if isinstance(subject, AliasesSubject):
        return tuple((None, identifier) for identifier in subject.identifiers)
    return ((None, subject),)


def unprocessable_members(subject: Subject, critical: frozenset[str]) -> frozenset[str]:
    """Name the critical members that are present and that we cannot interpret.

    critical: `critical_subject_members` of the transmitter. If the answer is not empty, the event
    is acknowledged and discarded. Raises nothing.
    Source: SSF 1.0 §3.6; requirements SUB-33, SET-60.
    """
    if not isinstance(subject, ComplexSubject):
        return frozenset()
    return frozenset(
        name for name, _ in subject.members if name in critical and name not in COMPLEX_MEMBER_NAMES
    )


def matches(stream_subject: Subject, event_subject: Subject, *, strict_spec: bool = False) -> bool:
    """Decide whether an event about one subject belongs on a stream that has the other.

    For delivery only, never to find what to remove (SUB-44). strict_spec: two complex subjects
    without a common member match, as the letter of the rule has it (SUB-43).
    Raises nothing. Source: SSF 1.0 §8.1.3.1; requirements SUB-40 to SUB-45.
    """
    if isinstance(stream_subject, ComplexSubject) and isinstance(event_subject, ComplexSubject):
        ours, theirs = dict(stream_subject.members), dict(event_subject.members)
        common = ours.keys() & theirs.keys()
        if not common:
            return strict_spec
        return all(_name_keys(ours[name]) & _name_keys(theirs[name]) for name in common)
    return bool(_name_keys(stream_subject) & _name_keys(event_subject))


def _name_keys(subject: Subject) -> set[str]:
    return {normal_form(simple) for _, simple in simple_members(subject)}


# --- reading -----------------------------------------------------------------------------------


def _parse_principal(
    name: str, members: Mapping[str, object], *, legacy: bool
) -> SimpleSubject | AliasesSubject:
    if name != "aliases":
        return simple_subject(name, members)
    identifiers = members.get("identifiers")
    if not isinstance(identifiers, list) or not 0 < len(identifiers) <= IDENTIFIERS_MAX:
        raise malformed(f"identifiers is no array of 1 to {IDENTIFIERS_MAX} members", "SUB-8")
    return AliasesSubject(
        identifiers=tuple(
            _parse_identifier(identifier, legacy=legacy) for identifier in identifiers
        )
    )


def _parse_identifier(obj: object, *, legacy: bool) -> SimpleSubject:
    name, members = _read(obj, legacy=legacy)
    if name in {"aliases", "complex"}:
        raise malformed(f"{name} inside aliases", "SUB-8")
    return simple_subject(name, members)


def _parse_complex(members: Mapping[str, object], *, legacy: bool) -> ComplexSubject:
    parsed = {
        name: _parse_complex_member(member, legacy=legacy)
        for name, member in members.items()
        # Members which are no object are no subjects: ignored like any unknown member (SET-17).
        if name != "format" and (name in COMPLEX_MEMBER_NAMES or isinstance(member, dict))
    }
    return _complex(parsed)


def _parse_complex_member(obj: object, *, legacy: bool) -> SimpleSubject | AliasesSubject:
    name, members = _read(obj, legacy=legacy)
    if name == "complex":
        raise malformed("complex inside complex", "SUB-30")
    return _parse_principal(name, members, legacy=legacy)


def _complex(members: Mapping[str, SimpleSubject | AliasesSubject]) -> ComplexSubject:
    if not 0 < len(members) <= MEMBERS_MAX:
        raise malformed(f"a complex subject has 1 to {MEMBERS_MAX} members", "SUB-30")
    return ComplexSubject(members=tuple(sorted(members.items())))


def _constructed(name: str, members: Mapping[str, object]) -> SimpleSubject:
    check_storable(members)
    return simple_subject(name, members)


def _read(obj: object, *, legacy: bool) -> tuple[str, Mapping[str, object]]:
    """Return the format and all members of one subject object."""
    if not isinstance(obj, dict):
        raise malformed("a subject identifier is a JSON object", "SET-59")
    members = _modernise(obj) if legacy else obj
    name = members.get("format")
    if not isinstance(name, str) or not 0 < len(name) <= FORMAT_CHARS_MAX:
        raise malformed(f"format is no string of 1 to {FORMAT_CHARS_MAX} characters", "SUB-20")
    return name, members


_LEGACY_FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {"phone": "phone_number", "iss-sub": "iss_sub"}
)


def _modernise(members: Mapping[str, object]) -> Mapping[str, object]:
    """Translate the names of older drafts; what is modern already stays as it is (SUB-25)."""
    modern = dict(members)
    if "format" not in modern:
        if "subject_type" in modern:
            modern["format"] = modern.pop("subject_type")
        elif COMPLEX_MEMBER_NAMES & modern.keys():
            modern["format"] = "complex"
    name = modern.get("format")
    if isinstance(name, str):
        modern["format"] = _LEGACY_FORMATS.get(name, name)
    if modern.get("format") == "phone_number" and "phone" in modern:
        modern.setdefault("phone_number", modern.pop("phone"))
    return modern
