"""Whom and what a signal names, and when it happened. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from risk import mapping
from risk.mappings.model import SubjectKind
from risk.model import EntityKind, Signal
from ssf.subject import SimpleSubject, normal_form, simple_members

#: formats that name people, whatever the event is about
_PEOPLE: Final = frozenset({"email", "phone_number", "account", "scim"})
#: the session that Keycloak (26.7) names when an administrator logs a user out of all of them
_EVERY_SESSION: Final = "ALL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """One subject identifier and what it may stand for; the first kind known to us wins.

    key: its normal form.
    """

    subject: SimpleSubject
    key: str
    kinds: tuple[EntityKind, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Whom and what a signal names.

    user, device: identifiers of one principal each. unsure: of one principal whose kind only a
    look at what we know can tell. sessions: of the session; maybe_sessions: of a session, if there
    is one of that name, else of what `unsure` says.
    """

    user: tuple[Name, ...] = ()
    device: tuple[Name, ...] = ()
    unsure: tuple[Name, ...] = ()
    sessions: tuple[SimpleSubject, ...] = ()
    maybe_sessions: tuple[SimpleSubject, ...] = ()


def occurred_at(signal: Signal) -> datetime:
    """Return when it happened; never later than we heard of it.

    A time in the future would let a remedy close findings that are still to come.
    """
    return min(signal.occurred_at, signal.received_at)


def names(signal: Signal, stands_for: SubjectKind | None = None) -> Names:
    """Return whom and what the subject names. Raises nothing. Requirement SUB-32.

    stands_for: what an identifier of unknown kind is, by the mapping that applies; None to ask the
    shipped ones.
    """
    if stands_for is None:
        stands_for = mapping.read(signal).stands_for
    members: dict[str, list[SimpleSubject]] = {}
    for member, simple in simple_members(signal.sub_id):
        members.setdefault(member or "", []).append(simple)
    people, others = _told_apart(members.get("", []))
    return Names(
        user=_as((*members.get("user", ()), *people), EntityKind.USER),
        device=_as(members.get("device", ()), EntityKind.DEVICE),
        unsure=_as(others, *_kinds_of_unnamed(stands_for)),
        sessions=_sessions(members.get("session", ()), of_user="user" in members),
        maybe_sessions=tuple(others) if stands_for == "session" else (),
    )


def keys_of(signal: Signal) -> set[str]:
    """Return the normal forms of everything the subject names. Raises nothing."""
    return {normal_form(simple) for _, simple in simple_members(signal.sub_id)}


def _as(subjects: Iterable[SimpleSubject], *kinds: EntityKind) -> tuple[Name, ...]:
    return tuple(
        Name(subject=subject, key=normal_form(subject), kinds=kinds) for subject in subjects
    )


def _sessions(subjects: Iterable[SimpleSubject], *, of_user: bool) -> tuple[SimpleSubject, ...]:
    """Return the sessions that are named one by one; none when all of the user are meant."""
    return tuple(
        subject
        for subject in subjects
        if not (of_user and subject.format == "opaque" and subject.get("id") == _EVERY_SESSION)
    )


def _told_apart(
    subjects: list[SimpleSubject],
) -> tuple[list[SimpleSubject], list[SimpleSubject]]:
    people = [subject for subject in subjects if subject.format in _PEOPLE]
    # Aliases name one principal: one name of a person tells what all the others are.
    if people:
        return subjects, []
    return [], subjects


def _kinds_of_unnamed(stands_for: SubjectKind) -> tuple[EntityKind, ...]:
    """Return what a subject without a member name and of a neutral format may stand for."""
    if stands_for == "device":
        return (EntityKind.DEVICE, EntityKind.USER)
    return (EntityKind.USER,)
