"""Messages of the AuthZEN Authorization API 1.0: requests read, nothing decided. Pure.

Source: AuthZEN Authorization API 1.0 §5 to §7; requirements AZ-2, AZ-3, AZB-1 to AZB-7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from runtime.errors import Invalid

EVALUATION_BYTES_MAX: Final = 64 * 1024
EVALUATIONS_BYTES_MAX: Final = 256 * 1024
JSON_DEPTH_MAX: Final = 16
EVALUATIONS_MAX: Final = 100
_ENTITIES: Final = ("subject", "action", "resource")
#: what names an entity; an item's entity takes over from the default one what it lacks of these
_NAMING: Final = {"subject": ("type", "id"), "action": ("name",), "resource": ("type", "id")}
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Semantic(StrEnum):
    """When a batch ends."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"

    def ends_at(self, *, decision: bool) -> bool:
        """Tell whether this decision is the last that is made."""
        if self is Semantic.EXECUTE_ALL:
            return False
        return decision is (self is Semantic.PERMIT_ON_FIRST_PERMIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A subject or a resource."""

    type: str
    id: str
    properties: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedAction:
    """What the subject is about to do; the name is free text."""

    name: str
    properties: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One question."""

    subject: Entity
    action: NamedAction
    resource: Entity
    context: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    def raw(self) -> dict[str, dict[str, Any]]:
        """Return the question as rules over attributes see it."""
        return {
            "subject": _raw(self.subject),
            "action": {"name": self.action.name, "properties": dict(self.action.properties)},
            "resource": _raw(self.resource),
            "context": dict(self.context),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Several questions. items: each a question, or why it is none."""

    items: Sequence[Evaluation | str]
    semantic: Semantic


def parse_evaluation(body: Mapping[str, Any]) -> Evaluation:
    """Read one question; unknown members are ignored. Raises Invalid. Requirement AZ-2."""
    return Evaluation(
        subject=_entity(body, "subject"),
        action=_action(body),
        resource=_entity(body, "resource"),
        context=_object(body, "context"),
    )


def parse_evaluations(body: Mapping[str, Any]) -> Evaluation | Batch:
    """Read a batch; without `evaluations` it is a single question (AZB-1). Raises Invalid.

    What is wrong with one item is that item's own matter (AZB-7).
    """
    items = body.get("evaluations")
    if items is None:
        items = []
    if not isinstance(items, list):
        raise Invalid("evaluations is not an array.")
    if len(items) > EVALUATIONS_MAX:
        raise Invalid(f"evaluations has more than {EVALUATIONS_MAX} items.")
    semantic = _semantic(_object(body, "options"))
    if not items:
        return parse_evaluation(body)
    return Batch(items=[_item(item, body) for item in items], semantic=semantic)


def _item(item: object, defaults: Mapping[str, Any]) -> Evaluation | str:
    if not isinstance(item, dict):
        return "The item is not an object."
    whole = {name: defaults.get(name) for name in (*_ENTITIES, "context")}
    whole |= {name: item[name] for name in whole if item.get(name) is not None}
    for name, naming in _NAMING.items():
        default, own = defaults.get(name), whole[name]
        if isinstance(own, dict) and isinstance(default, dict):
            # A member-wise merge is not meant (AZ 7.1.1), yet without a name the item would be
            # none; properties are never merged (AZB-4).
            whole[name] = {**{key: default[key] for key in naming if key in default}, **own}
    try:
        return parse_evaluation(whole)
    except Invalid as error:
        return error.detail


def _semantic(options: Mapping[str, Any]) -> Semantic:
    wanted = options.get("evaluations_semantic")
    if wanted is None:
        return Semantic.EXECUTE_ALL
    if not isinstance(wanted, str) or wanted not in set(Semantic):
        raise Invalid("options.evaluations_semantic is none of the three that there are.")
    return Semantic(wanted)


def _entity(body: Mapping[str, Any], name: str) -> Entity:
    given = _required(body, name)
    return Entity(
        type=_text(given, name, "type"),
        id=_text(given, name, "id"),
        properties=_object(given, "properties"),
    )


def _action(body: Mapping[str, Any]) -> NamedAction:
    given = _required(body, "action")
    return NamedAction(name=_text(given, "action", "name"), properties=_object(given, "properties"))


def _required(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if body.get(name) is None:
        raise Invalid(f"{name} is missing.")
    return _object(body, name)


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an optional object; null is taken as absent (AZ-10)."""
    value = body.get(name)
    if value is None:
        return _NOTHING
    if not isinstance(value, dict):
        raise Invalid(f"{name} is not an object.")
    return value


def _text(given: Mapping[str, Any], entity: str, name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise Invalid(f"{entity}.{name} is {'missing' if value is None else 'not a string'}.")
    return value


def _raw(entity: Entity) -> dict[str, Any]:
    return {"type": entity.type, "id": entity.id, "properties": dict(entity.properties)}
