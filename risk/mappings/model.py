"""The document of a mapping, and what makes one valid. Pure.

The structs are the JSON form itself: they are what administrators write, what is stored, and what
the shipped defaults are made of. Nothing in it is executed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NoReturn, TypeAlias

import msgspec
from msgspec import Meta

from risk import catalogue
from risk.contexts.parsing import SIGNAL_NAME_CHARS_MAX
from risk.model import REASON_CHARS_MAX
from runtime.errors import Invalid
from ssf.events.registry import STREAM_EVENT_TYPES, canonical_type_uri

MAPPINGS_PER_TENANT_MAX: Final = 500
RULES_MAX: Final = 50
CONDITIONS_MAX: Final = 16
EFFECTS_MAX: Final = 8
VALUES_MAX: Final = 64
REMEDIES_MAX: Final = 8
TEXT_CHARS_MAX: Final = 200
EVENT_TYPE_CHARS_MAX: Final = 512
PATH_DEPTH_MAX: Final = 8

#: `{member}` in a text stands for the value of that member
PLACEHOLDER: Final = re.compile(r"\{([^{}]+)\}")
_TYPE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")

Text = Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]
LevelName: TypeAlias = Literal["LOW", "MEDIUM", "HIGH"]
About: TypeAlias = Literal["user", "device", "session"]
SubjectKind: TypeAlias = Literal["user", "device", "session"]
Scalar: TypeAlias = str | int | float | bool
Op: TypeAlias = Literal[
    "eq", "ne", "in", "not_in", "exists", "gt", "gte", "lt", "lte",
    "contains", "starts_with", "ends_with",
]  # fmt: skip

_NUMERIC: Final = frozenset({"gt", "gte", "lt", "lte"})
#: words of people, which no event can say
_OF_PEOPLE: Final = frozenset({catalogue.CONFIRMED_SAFE, catalogue.ADMIN_LOWERED})
_REMEDIES: Final = frozenset(
    {
        catalogue.DEVICE_HEALTHY,
        catalogue.PARTNER_LOWERED,
        catalogue.ACCOUNT_ENABLED,
        catalogue.SESSION_RISK_LOWERED,
        catalogue.FACTORS_REVIEWED,
        catalogue.SESSIONS_REVOKED,
        catalogue.PHISHING_RESISTANT_SIGN_IN,
        catalogue.SESSIONS_SECURED,
    }
)


class Condition(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One test of one member of the event.

    member: its name, or a JSON Pointer such as `/device/state`. op, value: `exists` takes true or
    false, `in` and `not_in` a list, the others one value. A member that is missing or null passes
    only `ne`, `not_in` and `exists` false. ignore_case: for texts, within ASCII.
    """

    member: Text
    op: Op
    value: Scalar | Annotated[tuple[Scalar, ...], Meta(max_length=VALUES_MAX)]
    ignore_case: bool = False


class Raise(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True,
    tag_field="do", tag="raise",
):  # fmt: skip
    """Raise a detection.

    detection: a name of the catalogue, or `x_…`. reason: with `{member}` placeholders; when it is
    empty the event's own reason for administrators. clears_on: remedies that end it, besides
    `confirmed_safe`, which always does.
    """

    detection: Text
    about: About
    level: LevelName
    confidence: Annotated[float, Meta(ge=0, le=1)] = 1.0
    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX)] = ""
    clears_on: Annotated[tuple[Text, ...], Meta(max_length=REMEDIES_MAX)] = ()


class Clear(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True,
    tag_field="do", tag="clear",
):  # fmt: skip
    """Say that a cause is remedied. keep: findings up to this level stay."""

    remedy: Text
    about: About
    keep: LevelName | None = None


class EndSessions(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
    tag_field="do", tag="end_sessions",
):  # fmt: skip
    """The issuer's own sessions that the subject selects are over."""


class SeeSession(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
    tag_field="do", tag="see_session",
):  # fmt: skip
    """The named session of the issuer exists; the members `acr` and `amr` tell more of it."""


class ReportPosture(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True,
    tag_field="do", tag="report_posture",
):  # fmt: skip
    """A signal of the device's posture has another value; its sessions are judged again.

    signal: its name. value, old: with `{member}` placeholders; an empty value says nothing.
    """

    signal: Annotated[str, Meta(min_length=1, max_length=SIGNAL_NAME_CHARS_MAX)]
    value: Text
    old: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)] = ""


Effect: TypeAlias = Raise | Clear | EndSessions | SeeSession | ReportPosture


class Rule(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """When all conditions hold, these effects; without effects the event says nothing.

    subject: what a subject identifier stands for that neither its place nor its format tells;
    without it a device when an effect is about the device, else a user.
    """

    when: Annotated[tuple[Condition, ...], Meta(max_length=CONDITIONS_MAX)] = ()
    then: Annotated[tuple[Effect, ...], Meta(max_length=EFFECTS_MAX)] = ()
    subject: SubjectKind | None = None

    @property
    def stands_for(self) -> SubjectKind:
        """What an identifier of unknown kind stands for."""
        if self.subject is not None:
            return self.subject
        is_device = any(
            isinstance(each, ReportPosture)
            or (isinstance(each, Raise | Clear) and each.about == "device")
            for each in self.then
        )
        return "device" if is_device else "user"


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ordered rules of one event type; the first that matches applies.

    then_defaults: when none matches, the shipped rules of the type apply.
    """

    name: Text
    event_type: Annotated[str, Meta(min_length=1, max_length=EVENT_TYPE_CHARS_MAX)]
    then_defaults: bool = False
    rules: Annotated[tuple[Rule, ...], Meta(max_length=RULES_MAX)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMapping:
    """A mapping of a tenant, or a shipped one (version 0, without times)."""

    mapping_id: str
    mapping: Mapping
    version: int
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def is_default(self) -> bool:
        """Whether it is a shipped one."""
        return self.version == 0


def parse_mapping(document: object) -> Mapping:
    """Read a mapping document. Raises Invalid with a pointer to what is wrong."""
    try:
        mapping = msgspec.convert(document, Mapping)
    except msgspec.ValidationError as error:
        raise _invalid_shape(str(error)) from error
    event_type = canonical_type_uri(mapping.event_type)
    if not _TYPE_URI.fullmatch(event_type):
        _refuse("/event_type", "a URI")
    if event_type in STREAM_EVENT_TYPES:
        _refuse("/event_type", "events about a stream itself have no meaning for risk")
    for number, rule in enumerate(mapping.rules):
        _check_rule(rule, f"/rules/{number}")
    return msgspec.structs.replace(mapping, event_type=event_type)


def render_mapping(mapping: Mapping) -> dict[str, Any]:
    """Render a mapping as JSON values, in the form `parse_mapping` reads."""
    rendered: dict[str, Any] = msgspec.to_builtins(mapping)
    return rendered


def path_of(member: str) -> tuple[str, ...]:
    """Return the steps to a member: a JSON Pointer (RFC 6901), else one name."""
    if not member.startswith("/"):
        return (member,)
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in member[1:].split("/"))


def _check_rule(rule: Rule, at: str) -> None:
    for number, condition in enumerate(rule.when):
        _check_condition(condition, f"{at}/when/{number}")
    for number, effect in enumerate(rule.then):
        if isinstance(effect, Raise):
            _check_raise(effect, f"{at}/then/{number}")
        elif isinstance(effect, Clear):
            where = f"{at}/then/{number}/remedy"
            if effect.remedy in _OF_PEOPLE:
                _refuse(where, "only people can say this")
            _check_remedy(effect.remedy, where)
        elif isinstance(effect, ReportPosture):
            _check_placeholders(effect.value, f"{at}/then/{number}/value")
            _check_placeholders(effect.old, f"{at}/then/{number}/old")


def _check_condition(condition: Condition, at: str) -> None:
    if len(path_of(condition.member)) > PATH_DEPTH_MAX:
        _refuse(f"{at}/member", f"at most {PATH_DEPTH_MAX} steps")
    value, op = condition.value, condition.op
    values = value if isinstance(value, tuple) else (value,)
    if any(isinstance(each, str) and len(each) > TEXT_CHARS_MAX for each in values):
        _refuse(f"{at}/value", f"texts of at most {TEXT_CHARS_MAX} characters")
    is_list = isinstance(value, tuple)
    if is_list is not (op in {"in", "not_in"}) or not values:
        _refuse(f"{at}/value", "a list of values for in and not_in, one value else")
    if op == "exists" and not isinstance(value, bool):
        _refuse(f"{at}/value", "true or false")
    if op in _NUMERIC and (isinstance(value, bool) or not isinstance(value, int | float)):
        _refuse(f"{at}/value", "a number")
    if op in {"starts_with", "ends_with"} and not isinstance(value, str):
        _refuse(f"{at}/value", "a text")


def _check_raise(effect: Raise, at: str) -> None:
    name = effect.detection
    known = name in catalogue.FINDING_TYPES and name != catalogue.ADMIN_REPORTED
    if not known and not catalogue.is_own_name(name):
        _refuse(f"{at}/detection", "a detection of the catalogue, or a name x_… of your own")
    for number, remedy in enumerate(effect.clears_on):
        if remedy != catalogue.CONFIRMED_SAFE:
            _check_remedy(remedy, f"{at}/clears_on/{number}")
    _check_placeholders(effect.reason, f"{at}/reason")


def _check_remedy(remedy: str, at: str) -> None:
    # INVARIANT: a placeholder never decides which remedy it is. Else a provider could name one
    # that ends what others said.
    fixed = remedy.removeprefix(catalogue.CREDENTIAL_CHANGED)
    if remedy in _REMEDIES or catalogue.is_own_name(remedy):
        return
    if fixed in {remedy, ""}:
        _refuse(at, f"one of {', '.join(sorted(_REMEDIES))}, credential_changed:TYPE, or x_…")
    if len(fixed) > catalogue.CREDENTIAL_TYPE_CHARS_MAX:
        _refuse(at, f"at most {catalogue.CREDENTIAL_TYPE_CHARS_MAX} characters of type")
    _check_placeholders(fixed, at)


def _check_placeholders(text: str, at: str) -> None:
    for name in PLACEHOLDER.findall(text):
        if len(path_of(name)) > PATH_DEPTH_MAX:
            _refuse(at, f"at most {PATH_DEPTH_MAX} steps in a placeholder")


def _invalid_shape(message: str) -> Invalid:
    """Turn "… - at `$.rules[0].when[1].op`" into a JSON Pointer and its rule."""
    rule, found, path = message.rpartition(" - at `$")
    rule, path = (rule, path) if found else (message, "")
    pointer = re.sub(r"[.\[]", "/", path.rstrip("`").replace("]", ""))[:TEXT_CHARS_MAX]
    # It repeats what was sent.
    rule = rule[:TEXT_CHARS_MAX]
    return Invalid(
        f"The mapping is not valid: {pointer or 'the document'}: {rule}.",
        pointers=((pointer, rule),),
    )


def _refuse(at: str, rule: str) -> NoReturn:
    raise Invalid(f"The mapping is not valid: {at}: {rule}.", pointers=((at, rule),))
