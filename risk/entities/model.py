"""Users, devices, their names, and links between them. Pure rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from risk.model import EntityKind
from runtime.errors import Invalid
from ssf.errors import SubjectError
from ssf.subject import (
    ComplexSubject,
    SimpleSubject,
    email,
    iss_sub,
    normal_form,
    parse_subject,
    simple_members,
)

LABEL_CHARS_MAX: Final = 200
EXTERNAL_ID_CHARS_MAX: Final = 200
GROUPS_MAX: Final = 200
GROUP_CHARS_MAX: Final = 200
IDENTIFIERS_PER_ENTITY_MAX: Final = 50
REFERENCE_CHARS_MAX: Final = 2048
#: part of a primary key, which PostgreSQL bounds; a longer issuer is cut
SOURCE_CHARS_MAX: Final = 255
ADMIN_SOURCE: Final = "admin"
#: what the change feed calls groups of users; refs are users
GROUPS_KIND: Final = "groups"
SESSIONS_SOURCE: Final = "sessions"
ID_PREFIX: Final = {
    EntityKind.USER: "usr",
    EntityKind.DEVICE: "dev",
    EntityKind.APP: "app",
    EntityKind.SERVICE_ACCOUNT: "svc",
}


class LinkKind(StrEnum):
    """Why a device speaks for a user."""

    OWNER = "owner"
    SESSION = "session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A user, device or app of one tenant. groups: of a user, as policy rules name them."""

    tenant_id: str
    entity_id: str
    kind: EntityKind
    label: str
    external_id: str | None
    groups: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityView:
    """An entity with the subject identifiers it goes by, as JSON objects."""

    entity: Entity
    identifiers: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedEntity:
    """The outcome of adding a user or device. new_alias_keys: names nobody had before.

    is_regrouped: it was known, and is in other groups now.
    """

    entity_id: str
    created: bool
    new_alias_keys: tuple[str, ...]
    is_regrouped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A device belongs to a user, or a user has or had sessions on it. until: None while it lasts.

    source: who says so: an issuer, "admin", or "sessions". A session link covers all sessions of
    the pair, so `until` is the end of the last one.
    """

    tenant_id: str
    device_id: str
    user_id: str
    kind: LinkKind
    source: str
    since: datetime
    until: datetime | None

    def covers(self, moment: datetime) -> bool:
        """Return whether the link lasted beyond `moment`.

        A user who used the device at any time since it went bad is affected; one whose link ended
        before is not.
        """
        return self.until is None or self.until > moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """How an API caller names an entity: exactly one of the three is set."""

    entity_id: str | None = None
    external_id: str | None = None
    subject: SimpleSubject | None = None


def parse_reference(text: object, prefix: str = "usr") -> Reference:
    """Read `usr_…`, `email:…`, `ext:…` or `iss_sub:iss|sub`. Raises Invalid.

    Source: contracts §5.
    """
    if not isinstance(text, str) or not 0 < len(text) <= REFERENCE_CHARS_MAX or "\0" in text:
        raise _unreadable()
    if text.startswith(f"{prefix}_"):
        return Reference(entity_id=text)
    scheme, _, value = text.partition(":")
    try:
        if scheme == "ext" and value:
            return Reference(external_id=value)
        if scheme == "email":
            return Reference(subject=email(value))
        if scheme == "iss_sub" and "|" in value:
            iss, _, sub = value.partition("|")
            return Reference(subject=iss_sub(iss, sub))
    except SubjectError as error:
        raise _unreadable() from error
    raise _unreadable()


def parse_identifier(obj: object, at: str) -> SimpleSubject:
    """Read one simple subject identifier from JSON. Raises Invalid with the pointer `at`."""
    return parse_identifiers([obj], at)[0]


def parse_identifiers(items: Sequence[object], at: str) -> tuple[SimpleSubject, ...]:
    """Read 1 to 50 simple (or aliases) identifiers of one principal. Raises Invalid."""
    found: list[SimpleSubject] = []
    for item in items:
        try:
            subject = parse_subject(item)
        except SubjectError as error:
            raise Invalid(
                "A subject identifier is not well formed.", pointers=((at, error.description),)
            ) from error
        if isinstance(subject, ComplexSubject):
            raise Invalid(
                "A complex subject names more than one thing.", pointers=((at, "a simple subject"),)
            )
        found.extend(simple for _, simple in simple_members(subject))
    if not 0 < len(found) <= IDENTIFIERS_PER_ENTITY_MAX:
        raise Invalid(
            f"Between 1 and {IDENTIFIERS_PER_ENTITY_MAX} identifiers are needed.",
            pointers=((at, "too few or too many"),),
        )
    return tuple(found)


def keyed(subjects: Sequence[SimpleSubject]) -> dict[str, SimpleSubject]:
    """Return the identifiers by alias key, each once, in order."""
    return {normal_form(subject): subject for subject in subjects}


def label_of(subjects: Sequence[SimpleSubject]) -> str:
    """Return a label to show for an entity that was given none."""
    for member in ("email", "sub", "id", "phone_number", "uri"):
        for subject in subjects:
            if text := subject.get(member):
                return text[:LABEL_CHARS_MAX]
    return normal_form(subjects[0])[:LABEL_CHARS_MAX]


def owner_changes(links: Sequence[Link], stated: Link) -> list[Link]:
    """Return the owner links to write so that they say what was stated.

    links: all links of the device. stated: its source says that its user owns the device since
    then. What one source says replaces what it said before about other owners; what others say
    stays. A statement that arrives late changes only the past. Raises nothing.
    """
    at = stated.since
    said_before = [
        link for link in links if link.kind is LinkKind.OWNER and link.source == stated.source
    ]
    others = [link for link in said_before if link.user_id != stated.user_id]
    replaced = [replace(link, until=at) for link in others if link.since <= at and link.covers(at)]
    until = min((link.since for link in others if link.since > at), default=None)
    mine = next((link for link in said_before if link.user_id == stated.user_id), None)
    if mine is None:
        return [*replaced, replace(stated, until=until)]
    since, until = min(mine.since, at), mine.until if mine.covers(at) else until
    if (since, until) == (mine.since, mine.until):
        return replaced
    return [*replaced, replace(mine, since=since, until=until)]


def _unreadable() -> Invalid:
    return Invalid(
        "A user is named as usr_…, email:…, ext:… or iss_sub:issuer|subject.",
        pointers=(("/user", "not readable"),),
    )
