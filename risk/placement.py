"""Whom a signal concerns: bring the names in it together with what we know. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from risk import mapping, naming
from risk.drafts import (
    ClearanceDraft,
    DetectionDraft,
    Draft,
    PostureDraft,
    SessionEndDraft,
    SessionSeenDraft,
)
from risk.mapping import CompiledMappings
from risk.model import EntityKind, Signal, SignalMark, SignalMode, SignalOutcome
from risk.naming import Name, Names
from risk.sessions.model import Session, session_key
from ssf.subject import SimpleSubject


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """A signal with what it claims and whom it names."""

    signal: Signal
    drafts: tuple[Draft, ...]
    names: Names


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What we know of the names in a batch. sessions: by (issuer, sid)."""

    entities: Mapping[tuple[EntityKind, str], str]
    sessions: Mapping[tuple[str, str], Session]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A signal, brought together with the entities it concerns.

    sessions: those it names and we know. missing: alias keys of those it names and nobody knows.
    """

    signal: Signal
    drafts: tuple[Draft, ...]
    names: Names
    user_id: str | None
    device_id: str | None
    sessions: tuple[Session, ...]
    missing: tuple[str, ...]

    @property
    def names_by_id(self) -> bool:
        """Whether all that is said is about an app or a service account, which ids name."""
        return all(
            isinstance(each, DetectionDraft | ClearanceDraft) and bool(each.entity_id)
            for each in self.drafts
        )

    def entity_of(self, draft: DetectionDraft | ClearanceDraft) -> tuple[EntityKind, str] | None:
        """Return what the draft is about; None when that is nobody we know.

        A word about a device that is named by its user alone is kept with the user.
        """
        if draft.entity_id:
            return draft.kind, draft.entity_id
        if draft.kind is EntityKind.SESSION:
            return (EntityKind.SESSION, self.sessions[0].session_id) if self.sessions else None
        if draft.kind is EntityKind.DEVICE:
            if self.device_id is not None:
                return EntityKind.DEVICE, self.device_id
            if self.names.device:
                return None
        return None if self.user_id is None else (EntityKind.USER, self.user_id)


def draft(signal: Signal, mappings: CompiledMappings | None = None) -> Drafted:
    """Read a signal; mappings: of its tenant, None for the shipped ones. Raises nothing."""
    reading = mapping.read(signal, mappings)
    drafts = () if signal.mode is SignalMode.NONE else reading.drafts
    return Drafted(signal=signal, drafts=drafts, names=naming.names(signal, reading.stands_for))


def alias_keys(drafted: Iterable[Drafted]) -> set[str]:
    """Return the normal forms of all users and devices that are named."""
    return {
        name.key
        for each in drafted
        for name in (*each.names.user, *each.names.device, *each.names.unsure)
    }


def session_keys(drafted: Iterable[Drafted]) -> set[tuple[str, str]]:
    """Return (issuer, sid) of all sessions that are named, or may be."""
    return {
        key
        for each in drafted
        for subject in (*each.names.sessions, *each.names.maybe_sessions)
        if (key := session_key(subject, each.signal.iss)) is not None
    }


def devices_to_make(drafted: Iterable[Drafted], known: Known) -> dict[str, SimpleSubject]:
    """Return the unknown devices that are named together with a user we know, by alias key.

    A signal makes no user, and no device that would belong to nobody. Raises nothing.
    """
    wanted: dict[str, SimpleSubject] = {}
    for each in drafted:
        named = each.names.device
        if (
            named
            and _found(named, EntityKind.DEVICE, known) is None
            and _wants_device(each.drafts)
            and place(each, known).user_id is not None
        ):
            wanted[named[0].key] = named[0].subject
    return {key: wanted[key] for key in sorted(wanted)}


def place(drafted: Drafted, known: Known) -> Placement:
    """Bring a signal together with what we know. Raises nothing. Requirement SUB-32."""
    names = drafted.names
    sessions = _sessions(drafted, known)
    user_id = _found(names.user, EntityKind.USER, known)
    device_id = _found(names.device, EntityKind.DEVICE, known)
    if not names.user and not names.device:
        user_id, device_id = _told_by_kind(names.unsure, known)
    if user_id is None and not names.user and sessions:
        user_id = sessions[0].user_id
    missing: list[Name] = []
    if user_id is None:
        missing += names.user
    if device_id is None and user_id is None and _wants_device(drafted.drafts):
        missing += names.device
    if device_id is None and user_id is None:
        missing += names.unsure
    return Placement(
        signal=drafted.signal,
        drafts=drafted.drafts,
        names=names,
        user_id=user_id,
        device_id=device_id,
        sessions=sessions,
        missing=tuple(dict.fromkeys(name.key for name in missing)),
    )


def mark(placement: Placement) -> SignalMark:
    """Return what became of a placed signal. Raises nothing."""
    signal = placement.signal
    if not placement.drafts:
        outcome, detail = SignalOutcome.IGNORED, "says nothing about risk"
        if signal.mode is SignalMode.NONE:
            detail = "the provider's mode is none"
        return _mark(signal, outcome, detail)
    if placement.missing and not placement.names_by_id:
        detail = "the device is known, its user is not" if placement.device_id else "nobody known"
        return _mark(signal, SignalOutcome.UNMATCHED, detail, placement.missing)
    if not placement.names_by_id and not (
        placement.user_id or placement.device_id or placement.sessions
    ):
        return _mark(signal, SignalOutcome.UNMATCHED, "names nobody we can know")
    return _mark(signal, SignalOutcome.ASSESSED, _said(placement.drafts))


def _mark(
    signal: Signal, outcome: SignalOutcome, detail: str, missing: tuple[str, ...] = ()
) -> SignalMark:
    return SignalMark(
        tenant_id=signal.tenant_id,
        signal_id=signal.signal_id,
        state=outcome.value,
        detail=detail,
        alias_keys=missing,
    )


def _said(drafts: Iterable[Draft]) -> str:
    # Posture that comes with a finding goes without saying.
    words = [_word(each) for each in drafts]
    return ", ".join([each for each in words if each != "posture"] or words[:1])


def _word(draft: Draft) -> str:
    if isinstance(draft, DetectionDraft):
        return draft.name
    if isinstance(draft, ClearanceDraft):
        return draft.remedy
    if isinstance(draft, PostureDraft):
        return "posture"
    return "session_end" if isinstance(draft, SessionEndDraft) else "session_seen"


def _wants_device(drafts: Iterable[Draft]) -> bool:
    return any(
        isinstance(each, SessionSeenDraft | PostureDraft)
        or (isinstance(each, DetectionDraft | ClearanceDraft) and each.kind is EntityKind.DEVICE)
        for each in drafts
    )


def _found(names: Iterable[Name], kind: EntityKind, known: Known) -> str | None:
    keys = ((kind, name.key) for name in names)
    return next((known.entities[key] for key in keys if key in known.entities), None)


def _told_by_kind(names: Sequence[Name], known: Known) -> tuple[str | None, str | None]:
    """Return (user id, device id), of which at most one is there: the first kind that fits."""
    for kind in names[0].kinds if names else ():
        entity_id = _found(names, kind, known)
        if entity_id is not None:
            return (entity_id, None) if kind is EntityKind.USER else (None, entity_id)
    return None, None


def _sessions(drafted: Drafted, known: Known) -> tuple[Session, ...]:
    subjects = drafted.names.sessions or drafted.names.maybe_sessions
    keys = (session_key(subject, drafted.signal.iss) for subject in subjects)
    return tuple(known.sessions[key] for key in keys if key is not None and key in known.sessions)


# --- sessions -----------------------------------------------------------------------------------


def sessions_to_end(placement: Placement, live: Iterable[Session]) -> list[Session]:
    """Return the sessions that a word of their own issuer ends, as ended.

    live: sessions of the user. Sessions that began after the event stay (SET-19); a session must
    match every member of the subject (SUB-34). Raises nothing.
    """
    at = naming.occurred_at(placement.signal)
    named = placement.names.sessions or placement.sessions
    candidates = placement.sessions if named else live
    return [
        replace(session, ended_at=at, updated_at=at)
        for session in candidates
        if session.iss == placement.signal.iss
        and session.ended_at is None
        and session.started_at <= at
        and placement.user_id in (None, session.user_id)
        and (not placement.names.device or placement.device_id == session.device_id)
    ]
