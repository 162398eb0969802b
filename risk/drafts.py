"""What a signal claims, before it is known whom it concerns. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from risk.mappings.model import SubjectKind
from risk.model import EntityKind, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionDraft:
    """A finding about the named entity of this kind.

    source_class: None for that of the provider. entity_id: of an app or service account, which have
    no subject identifiers; "" for what the subject names.
    """

    kind: EntityKind
    name: str
    level: Level
    clears_on: tuple[str, ...]
    reason: str = ""
    confidence: float = 1.0
    source_class: str | None = None
    entity_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearanceDraft:
    """A remedy for the named entity of this kind; level: what remains, None for nothing.

    entity_id: as of a finding.
    """

    kind: EntityKind
    remedy: str
    level: Level | None = None
    entity_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEndDraft:
    """The sessions that the subject selects, of the issuer itself, are over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSeenDraft:
    """The named session of the issuer exists. fp_ua, ip: with what and from where it is used."""

    acr: str | None = None
    amr: tuple[str, ...] | None = None
    fp_ua: str = ""
    ip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostureDraft:
    """Signals of the named device have these values now. old: before, where the event says so."""

    signals: Mapping[str, str]
    old: Mapping[str, str]


Draft: TypeAlias = (
    DetectionDraft | ClearanceDraft | SessionEndDraft | SessionSeenDraft | PostureDraft
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an event claims, and what a subject of unknown kind stands for."""

    drafts: tuple[Draft, ...]
    stands_for: SubjectKind
