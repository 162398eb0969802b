"""From an event to what it means for risk: findings, remedies, facts about sessions. Pure.

What an event means is data (`risk.mappings`): `compile_mappings` makes it quick to apply, `read`
applies it to a signal. `risk.naming` says about whom, `risk.placement` brings both together. An
event without a meaning for risk gives no drafts.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec
from typing_extensions import TypeIs

from risk import announced, catalogue
from risk.contexts.parsing import SIGNAL_VALUE_CHARS_MAX
from risk.drafts import (
    ClearanceDraft,
    DetectionDraft,
    Draft,
    PostureDraft,
    Reading,
    SessionEndDraft,
    SessionSeenDraft,
)
from risk.mappings.defaults import DEFAULT_MAPPINGS
from risk.mappings.model import (
    PLACEHOLDER,
    Clear,
    Condition,
    Effect,
    EndSessions,
    Raise,
    ReportPosture,
    Rule,
    Scalar,
    SubjectKind,
    path_of,
)
from risk.mappings.model import Mapping as EventMapping
from risk.model import REASON_CHARS_MAX, EntityKind, Level, Signal
from ssf.events.registry import Event, UnknownEvent

#: as the session index has it; longer values of others are left out
SESSION_TEXT_CHARS_MAX: Final = 200
AMR_MAX: Final = 20


#: the members of an event as JSON values
Document: TypeAlias = Mapping[str, Any]
_Test: TypeAlias = Callable[[Document], bool]
_Draw: TypeAlias = Callable[[Document], Draft]


@dataclass(frozen=True, slots=True)
class _CompiledRule:
    tests: tuple[_Test, ...]
    draws: tuple[_Draw, ...]
    stands_for: SubjectKind


#: event type to its rules, ready to be applied
CompiledMappings: TypeAlias = Mapping[str, tuple[_CompiledRule, ...]]
_NOTHING: Final = Reading((), "user")


def compile_mappings(own: Iterable[EventMapping] = ()) -> CompiledMappings:
    """Return the shipped mappings with a tenant's own in their place. Raises nothing.

    own: valid mappings, one per event type.
    """
    shipped = shipped_mappings()
    compiled = dict(shipped)
    for each in own:
        after = shipped.get(each.event_type, ()) if each.then_defaults else ()
        compiled[each.event_type] = (*map(_compile, each.rules), *after)
    return MappingProxyType(compiled)


@functools.cache
def shipped_mappings() -> CompiledMappings:
    """Return the shipped mappings, compiled once."""
    return MappingProxyType(
        {each.event_type: tuple(map(_compile, each.rules)) for each in DEFAULT_MAPPINGS}
    )


def read(signal: Signal, mappings: CompiledMappings | None = None) -> Reading:
    """Return what the event claims by the first rule that fits; mappings: None for the shipped.

    Raises nothing. Source: threat model §1.3, §4.1, §4.5; CAEP 1.0 §3, RISC 1.0 §2.
    """
    rules = (shipped_mappings() if mappings is None else mappings).get(signal.event.type_uri)
    if not rules:
        return (
            announced.read(signal.event) if signal.event.type_uri in announced.TYPES else _NOTHING
        )
    document = _document(signal.event)
    for rule in rules:
        for test in rule.tests:
            if not test(document):
                break
        else:
            return Reading(tuple(draw(document) for draw in rule.draws), rule.stands_for)
    return _NOTHING


def drafts(signal: Signal, mappings: CompiledMappings | None = None) -> tuple[Draft, ...]:
    """Return what the event claims; () when it says nothing about risk or sessions."""
    return read(signal, mappings).drafts


def _document(event: Event) -> Document:
    if isinstance(event, UnknownEvent):
        return event.payload
    members: dict[str, Any] = msgspec.to_builtins(event)
    return members


# --- conditions ---------------------------------------------------------------------------------


def _compile(rule: Rule) -> _CompiledRule:
    return _CompiledRule(
        tuple(map(_test, rule.when)), tuple(map(_draw, rule.then)), rule.stands_for
    )


def _test(condition: Condition) -> _Test:
    steps, check = path_of(condition.member), _check(condition)
    if len(steps) == 1:
        (name,) = steps
        return lambda document: check(document.get(name))
    return lambda document: check(_member(document, steps))


def _member(document: object, steps: Iterable[str]) -> object:
    """Return the value at the end of the path; None when there is none."""
    for step in steps:
        if isinstance(document, Mapping):
            document = document.get(step)
        elif isinstance(document, list | tuple) and step.isascii() and step.isdigit():
            document = document[int(step)] if int(step) < len(document) else None
        else:
            return None
    return document


_ORDER: Final[Mapping[str, Callable[[Any, Any], bool]]] = MappingProxyType(
    {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
)


def _check(condition: Condition) -> Callable[[object], bool]:
    """Return the test of a value; None stands for a member that is not there."""
    value = condition.value
    if condition.op == "exists":
        return lambda given: (given is not None) is value
    if condition.op in _ORDER:
        compare = _ORDER[condition.op]
        return lambda given: _is_number(given) and compare(given, value)
    fold = _fold if condition.ignore_case else _as_it_is
    if condition.op in {"eq", "ne", "in", "not_in"}:
        values = value if isinstance(value, tuple) else (value,)
        return _check_among(values, fold, is_among=condition.op in {"eq", "in"})
    return _check_part(condition.op, fold(value), fold)


def _check_among(
    values: Sequence[Scalar], fold: Callable[[Any], Any], *, is_among: bool
) -> Callable[[object], bool]:
    texts = frozenset(fold(each) for each in values if isinstance(each, str))
    if len(texts) == len(values):
        # Nearly always; nothing but a text equals a text.
        return lambda given: (isinstance(given, str) and fold(given) in texts) is is_among
    wanted = frozenset(map(_key, map(fold, values)))
    return lambda given: (_key(fold(given)) in wanted) is is_among


def _check_part(op: str, value: Any, fold: Callable[[Any], Any]) -> Callable[[object], bool]:
    match op:
        case "starts_with":
            return lambda given: isinstance(given, str) and str(fold(given)).startswith(value)
        case "ends_with":
            return lambda given: isinstance(given, str) and str(fold(given)).endswith(value)
        case _:
            return lambda given: _contains(given, value, fold)


def _contains(given: object, value: Scalar, fold: Callable[[Any], Any]) -> bool:
    if isinstance(given, str):
        return isinstance(value, str) and value in fold(given)
    if isinstance(given, list | tuple):
        return any(_key(fold(each)) == _key(value) for each in given)
    return False


def _key(value: Any) -> tuple[str, Any]:
    """Return what equal values share: true is not 1, a text is no number; lists equal nothing."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int | float):
        return ("number", value)
    return ("text", value) if isinstance(value, str) else ("other", None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_it_is(value: Any) -> Any:
    return value


def _fold(value: Any) -> Any:
    # Not upper() for all: a letter of another script that only looks or sounds like one of ours
    # must not make an unknown word a known one.
    if not isinstance(value, str):
        return value
    return value.upper() if value.isascii() else value.casefold()


# --- effects ------------------------------------------------------------------------------------


def _draw(effect: Effect) -> _Draw:
    if isinstance(effect, Raise):
        return _draw_detection(effect)
    if isinstance(effect, Clear):
        return _draw_clearance(effect)
    if isinstance(effect, EndSessions):
        return lambda _document: SessionEndDraft()
    return _draw_posture(effect) if isinstance(effect, ReportPosture) else _draw_session


def _draw_detection(effect: Raise) -> _Draw:
    kind, level = EntityKind(effect.about), Level[effect.level]
    remedies = [_remedy(each) for each in effect.clears_on if each != catalogue.CONFIRMED_SAFE]
    reason = _text(effect.reason, REASON_CHARS_MAX) if effect.reason else None

    def draw(document: Document) -> Draft:
        ends = dict.fromkeys(remedy(document) for remedy in remedies)
        return DetectionDraft(
            kind=kind,
            name=effect.detection,
            level=level,
            # INVARIANT: people can end everything.
            clears_on=(*ends, catalogue.CONFIRMED_SAFE),
            reason=(reason(document) if reason else "") or _reason_of(document),
            confidence=effect.confidence,
        )

    return draw


def _draw_clearance(effect: Clear) -> _Draw:
    kind, remedy = EntityKind(effect.about), _remedy(effect.remedy)
    level = None if effect.keep is None else Level[effect.keep]
    return lambda document: ClearanceDraft(kind=kind, remedy=remedy(document), level=level)


def _draw_posture(effect: ReportPosture) -> _Draw:
    value = _text(effect.value, SIGNAL_VALUE_CHARS_MAX)
    old = _text(effect.old, SIGNAL_VALUE_CHARS_MAX) if effect.old else None

    def draw(document: Document) -> Draft:
        now, before = _one_line(value(document)), _one_line(old(document)) if old else ""
        return PostureDraft(
            signals={effect.signal: now} if now else {},
            old={effect.signal: before} if before else {},
        )

    return draw


def _one_line(text: str) -> str:
    return "".join(filter(str.isprintable, text)).strip()


def _draw_session(document: Document) -> Draft:
    acr, amr = document.get("acr"), document.get("amr")
    methods = amr if isinstance(amr, list | tuple) else None
    fp_ua, ips = document.get("fp_ua"), document.get("ips")
    seen_at = [ip for ip in ips if isinstance(ip, str)] if isinstance(ips, list | tuple) else []
    return SessionSeenDraft(
        fp_ua=fp_ua if isinstance(fp_ua, str) else "",
        ip=seen_at[0] if seen_at else "",
        acr=acr if _is_short(acr) else None,
        amr=None if methods is None else tuple(filter(_is_short, methods))[:AMR_MAX],
    )


def _is_short(value: object) -> TypeIs[str]:
    return isinstance(value, str) and len(value) <= SESSION_TEXT_CHARS_MAX


def _remedy(text: str) -> Callable[[Document], str]:
    type_text = text.removeprefix(catalogue.CREDENTIAL_CHANGED)
    if type_text == text:
        return lambda _document: text
    credential_type = _text(type_text, catalogue.CREDENTIAL_TYPE_CHARS_MAX)
    return lambda document: catalogue.credential_changed(credential_type(document))


def _text(template: str, chars_max: int) -> Callable[[Document], str]:
    """Return what fills `{member}` placeholders with texts and numbers of the event."""
    parts = PLACEHOLDER.split(template)
    # `split` alternates: fixed text, member, fixed text, …
    members = {place: path_of(part) for place, part in enumerate(parts) if place % 2}

    def fill(document: Document) -> str:
        filled = (
            _shown(_member(document, members[place])) if place in members else part
            for place, part in enumerate(parts)
        )
        return "".join(filled)[:chars_max]

    return fill


def _shown(value: object) -> str:
    return str(value) if isinstance(value, str) or _is_number(value) else ""


def _reason_of(document: Document) -> str:
    """Return the reason for administrators, in English when there is one."""
    given = document.get("reason_admin")
    texts: Mapping[str, object] = given if isinstance(given, Mapping) else {"en": given}
    found: Sequence[object] = [texts.get("en"), *(texts[tag] for tag in sorted(texts))]
    text = next((each for each in found if isinstance(each, str) and each), "")
    return text[:REASON_CHARS_MAX]
