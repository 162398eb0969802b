"""Detections and remedies that are said by name: our own two event types. Pure.

`POST {base}/v1/signals/detections` and `…/remedies` put them into the inbox; a provider may send
them in a SET as well. What they may say is checked here, at the door and again when they are read,
because a SET does not pass that door.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from risk import catalogue
from risk.contexts.parsing import parse_signals
from risk.drafts import ClearanceDraft, DetectionDraft, PostureDraft, Reading
from risk.finding_type import FindingType
from risk.mappings.model import SubjectKind
from risk.model import REASON_CHARS_MAX, EntityKind, Level
from runtime.errors import Invalid
from ssf.events.registry import Event, UnknownEvent

DETECTION: Final = "urn:signalhub:event:detection"
REMEDY: Final = "urn:signalhub:event:remedy"
POSTURE: Final = "urn:signalhub:event:posture"
TYPES: Final = frozenset({DETECTION, REMEDY, POSTURE})

REASONS_MAX: Final = 20
ENTITY_ID_CHARS_MAX: Final = 64
#: what has no subject identifiers and is named by its id
NAMED_BY_ID: Final = frozenset({EntityKind.APP, EntityKind.SERVICE_ACCOUNT})
_DETECTION_MEMBERS: Final = frozenset(
    {"name", "level", "confidence", "reasons", "entity_kind", "entity_id"}
)
_POSTURE_MEMBERS: Final = frozenset({"signals", "old"})
_REMEDY_MEMBERS: Final = frozenset({"remedy", "entity_kind", "entity_id"})
#: remedies that can be said by name; the others are words of people, or follow from these
_REMEDIES: Final = frozenset(
    {
        catalogue.ACCOUNT_ENABLED,
        catalogue.DEVICE_HEALTHY,
        catalogue.FACTORS_REVIEWED,
        catalogue.PARTNER_LOWERED,
        catalogue.PHISHING_RESISTANT_SIGN_IN,
        catalogue.SESSIONS_REVOKED,
    }
)
_NOTHING: Final = Reading((), "user")


def read(event: Event) -> Reading:
    """Return what one of our own events claims; nothing when it is not one. Raises nothing."""
    payload = event.payload if isinstance(event, UnknownEvent) else {}
    try:
        if event.type_uri == DETECTION:
            found = parse_detection(payload)
            return Reading((found,), _stands_for(found.kind))
        if event.type_uri == REMEDY:
            remedied = parse_remedy(payload)
            return Reading((remedied,), _stands_for(remedied.kind))
        if event.type_uri == POSTURE:
            return Reading((parse_posture(payload),), "device")
    except Invalid:
        # Like a level that nobody knows: the event says nothing.
        return _NOTHING
    return _NOTHING


def parse_detection(payload: Mapping[str, Any], at: str = "") -> DetectionDraft:
    """Read a detection by name: `{name, level?, confidence?, reasons?, entity_kind?, entity_id?}`.

    level: at most that of the catalogue, which is the default. Raises Invalid with pointers.
    """
    _no_others(payload, _DETECTION_MEMBERS, at)
    finding = _finding(payload.get("name"), at)
    kind, entity_id = _entity(payload, finding.about, at)
    return DetectionDraft(
        kind=kind,
        name=finding.name,
        level=_level(payload.get("level"), finding, at),
        clears_on=finding.clears_on,
        reason=_reason(payload.get("reasons"), at),
        confidence=_confidence(payload.get("confidence", 1.0), at),
        source_class=finding.source_class,
        entity_id=entity_id,
    )


def parse_remedy(payload: Mapping[str, Any], at: str = "") -> ClearanceDraft:
    """Read a remedy by name: `{remedy, entity_kind?, entity_id?}`. Raises Invalid with pointers."""
    _no_others(payload, _REMEDY_MEMBERS, at)
    remedy = payload.get("remedy")
    if not isinstance(remedy, str) or not _is_remedy(remedy):
        _refuse(f"{at}/remedy", f"one of {', '.join(sorted(_REMEDIES))}, credential_changed:TYPE")
    about = EntityKind.DEVICE if remedy == catalogue.DEVICE_HEALTHY else EntityKind.USER
    kind, entity_id = _entity(payload, about, at)
    return ClearanceDraft(kind=kind, remedy=remedy, entity_id=entity_id)


def parse_posture(payload: Mapping[str, Any], at: str = "") -> PostureDraft:
    """Read the posture of a device: `{signals, old?}`, names to values as `evaluate` takes them.

    Raises Invalid with pointers.
    """
    _no_others(payload, _POSTURE_MEMBERS, at)
    signals = parse_signals(payload.get("signals"), f"{at}/signals")
    if not signals:
        _refuse(f"{at}/signals", "at least one signal of the device")
    return PostureDraft(signals=signals, old=parse_signals(payload.get("old"), f"{at}/old"))


def _is_remedy(remedy: str) -> bool:
    kind = remedy.removeprefix(catalogue.CREDENTIAL_CHANGED)
    if kind != remedy:
        return 0 < len(kind) <= catalogue.CREDENTIAL_TYPE_CHARS_MAX and kind.isprintable()
    return remedy in _REMEDIES


def _finding(name: object, at: str) -> FindingType:
    known = catalogue.FINDING_TYPES.get(name) if isinstance(name, str) else None
    if known is None:
        if isinstance(name, str) and catalogue.is_own_name(name):
            return catalogue.finding_type(name)
        _refuse(f"{at}/name", "a name of the catalogue, or one of your own: x_ and lower case")
    if not known.is_raisable:
        _refuse(f"{at}/name", "not for signals: people or the hub itself say this")
    return known


def _entity(payload: Mapping[str, Any], about: EntityKind, at: str) -> tuple[EntityKind, str]:
    kind = payload.get("entity_kind")
    if kind is None:
        return about, ""
    if about is EntityKind.DEVICE or not isinstance(kind, str) or kind not in NAMED_BY_ID:
        _refuse(f"{at}/entity_kind", "app or service_account, where the finding is about a user")
    entity_id = payload.get("entity_id")
    if (
        not isinstance(entity_id, str)
        or not 0 < len(entity_id) <= ENTITY_ID_CHARS_MAX
        or not (entity_id.isascii() and entity_id.isprintable())
    ):
        _refuse(f"{at}/entity_id", f"1 to {ENTITY_ID_CHARS_MAX} visible characters")
    return EntityKind(kind), entity_id


def _level(value: object, finding: FindingType, at: str) -> Level:
    most = Level.HIGH if catalogue.is_own_name(finding.name) else finding.level
    if value is None:
        return finding.level
    if not isinstance(value, str) or value not in Level.__members__ or Level[value] > most:
        _refuse(f"{at}/level", f"LOW, MEDIUM or HIGH, at most {most.name} for {finding.name}")
    return Level[value]


def _confidence(value: object, at: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:  # type: ignore[operator]  # it is a number
        _refuse(f"{at}/confidence", "a number from 0 to 1")
    return float(value)  # type: ignore[arg-type]  # it is a number


def _reason(value: object, at: str) -> str:
    if value is None:
        return ""
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or len(value) > REASONS_MAX
        or not all(isinstance(each, str) and each.isprintable() for each in value)
    ):
        _refuse(f"{at}/reasons", f"an array of at most {REASONS_MAX} lines of text")
    return "; ".join(value)[:REASON_CHARS_MAX]


def _no_others(payload: Mapping[str, Any], members: frozenset[str], at: str) -> None:
    for name in sorted(set(payload) - members):
        _refuse(f"{at}/{name[:64]}", "not a member of this")


def _stands_for(kind: EntityKind) -> SubjectKind:
    return "device" if kind is EntityKind.DEVICE else "user"


def _refuse(pointer: str, rule: str) -> NoReturn:
    raise Invalid(f"{pointer}: {rule}.", pointers=((pointer, rule),))
