"""Rules about subjects of a stream, and what they say of one event."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from ssf.subject import (
    ComplexSubject,
    SimpleSubject,
    Subject,
    matches,
    render_subject,
    simple_members,
)
from ssf.subject_formats import normal_form

#: rules of one stream
SUBJECTS_PER_STREAM_MAX: Final = 1_000_000
#: changes of subjects by one client in one process: so many at once, then so many per second
CHANGES_AT_ONCE: Final = 10_000.0
CHANGES_PER_S: Final = 100.0
ALL: Final = "ALL"
NONE: Final = "NONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectRule:
    """A subject that a receiver added (under NONE) or removed (under ALL).

    since, until: when it counts; until is None for good. is_verified: as the receiver said.
    """

    tenant_id: str
    stream_id: str
    is_excluded: bool
    subject: Subject
    is_verified: bool
    since: datetime
    until: datetime | None = None


def subject_key(subject: Subject) -> str:
    """Return one text per subject: equal exactly when two subjects are the same (SUB-41)."""
    if isinstance(subject, SimpleSubject):
        text = "simple " + normal_form(subject)
    else:
        names = sorted(
            f"{name or ''}={normal_form(simple)}" for name, simple in simple_members(subject)
        )
        text = type(subject).__name__ + " " + msgspec.json.encode(names).decode()
    return hashlib.sha256(text.encode()).hexdigest()


def name_keys(subject: Subject) -> frozenset[str]:
    """Return the normal forms of all that is named in a subject: what rules are found by."""
    return frozenset(normal_form(simple) for _, simple in simple_members(subject))


def is_wanted(default: str, rules: Sequence[SubjectRule], subjects: Sequence[Subject]) -> bool:
    """Decide whether an event about a principal belongs on a stream, by its subjects.

    default: ALL or NONE. rules: of the stream, that count now and name something the event names.
    subjects: identifiers of the one principal the event is about.
    Source: SSF 1.0 §8.1.3.1; requirements SUB-40 to SUB-45, SSF-SUBJ-7.
    """
    if default == NONE:
        return any(
            matches(rule.subject, subject)
            for rule in rules
            if not rule.is_excluded
            for subject in subjects
        )
    return not any(
        _removes(rule.subject, subject)
        for rule in rules
        if rule.is_excluded
        for subject in subjects
    )


def _removes(removed: Subject, subject: Subject) -> bool:
    """Tell whether the removed subject is this one, or describes it in part (SUB-44).

    Narrower than what delivers: in doubt a security event is sent. Nobody who removed a user's
    device loses what concerns the user, and nobody who removed the user what concerns a device.
    """
    if isinstance(removed, ComplexSubject):
        if not isinstance(subject, ComplexSubject):
            return False
        theirs = dict(subject.members)
        return all(
            name in theirs and bool(name_keys(member) & name_keys(theirs[name]))
            for name, member in removed.members
        )
    if isinstance(subject, ComplexSubject):
        return False
    return bool(name_keys(removed) & name_keys(subject))


def rendered(subject: Subject) -> dict[str, object]:
    """Return the subject as it is stored."""
    return render_subject(subject)
