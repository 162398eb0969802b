"""When a rule of a session or sign-in policy matches: structured conditions. Pure.

    "when": {"action": ["session"], "level": {"at_least": "MEDIUM"}, "zones": {"exclude": ["x"]}}

All that are given must hold; none given matches everything. What is in and out of a list at once
never matches and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from risk.contexts.model import Change
from risk.model import Level
from risk.policies import reading
from risk.policies.expressions import Expression, ExpressionError, check
from risk.policies.facts import RequestFacts, RequestKind

LEVELS: Final = ("level", "user_level", "device_level")
AGE_S_MAX: Final = 366 * 24 * 3600
POSTURE_KEYS_MAX: Final = 50

Values = Callable[[RequestFacts], frozenset[str]]


def _behaviours(facts: RequestFacts) -> frozenset[str]:
    return frozenset(name for name, value in facts.behaviours.items() if value == "POSITIVE")


#: condition -> what it looks at. Behaviours: those that are POSITIVE.
SETS: Final[Mapping[str, Values]] = {
    "zones": lambda facts: facts.zones,
    "groups": lambda facts: facts.groups,
    "apps": lambda facts: frozenset((facts.app_id,)) if facts.app_id else frozenset(),
    "behaviours": _behaviours,
    "detections": lambda facts: facts.detections,
    "changes": lambda facts: frozenset(facts.changes),
    "issuers": lambda facts: frozenset((facts.issuer,)) if facts.issuer else frozenset(),
    "amr": lambda facts: frozenset(facts.amr),
    "acr": lambda facts: frozenset((facts.acr,)) if facts.acr else frozenset(),
}
MEMBERS: Final = ("action", *LEVELS, *SETS, "posture", "auth_age", "expression")
Test = Callable[[RequestFacts], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelCondition:
    """A level is this one, or at least this one. which: of `LEVELS`."""

    which: str
    level: Level
    at_least: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCondition:
    """One of `include` is there, if any is named, and none of `exclude`. which: of `SETS`."""

    which: str
    include: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class PostureCondition:
    """A signal of the device has one of these values; is_excluded: it has none of them."""

    key: str
    values: frozenset[str]
    is_excluded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeCondition:
    """Since the last proof: more than over_s, or at most within_s. Unknown is long ago."""

    over_s: int | None = None
    within_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """All of a rule. actions: kinds of request, none for all."""

    actions: frozenset[str] = frozenset()
    levels: tuple[LevelCondition, ...] = ()
    sets: tuple[SetCondition, ...] = ()
    posture: tuple[PostureCondition, ...] = ()
    age: AgeCondition | None = None
    expression: Expression | None = None

    def names_of(self, which: str) -> frozenset[str]:
        """Return all names that the conditions on zones, groups or apps mention."""
        return frozenset(
            name
            for each in self.sets
            if each.which == which
            for name in (*each.include, *each.exclude)
        )

    def reads_age(self) -> bool:
        """Tell whether an expression looks at how long ago the last proof was."""
        return self.expression is not None and "auth_age_s" in self.expression.names

    def ages_s(self) -> tuple[int, ...]:
        """Return the ages past which the structured conditions say something else."""
        given = (self.age.over_s, self.age.within_s) if self.age is not None else ()
        return tuple(each for each in given if each is not None)

    def depends_on_app(self) -> bool:
        """Tell whether two apps of a session can get different answers."""
        uses = self.expression.names if self.expression else frozenset()
        return bool(self.names_of("apps")) or "app" in uses


def tests_of(conditions: Conditions) -> tuple[Test, ...]:
    """Return what has to hold, the cheap ones first; the expression is not among them."""
    tests: list[Test] = []
    if conditions.actions:
        actions = conditions.actions
        tests.append(lambda facts: facts.kind in actions)
    tests += [_level_test(each) for each in conditions.levels]
    tests += [_posture_test(each) for each in conditions.posture]
    if conditions.age is not None:
        tests.append(_age_test(conditions.age))
    tests += [_set_test(each) for each in conditions.sets]
    return tuple(tests)


def _level_test(condition: LevelCondition) -> Test:
    level_of, level = attrgetter(condition.which), condition.level
    if condition.at_least:
        return lambda facts: bool(level_of(facts) >= level)
    return lambda facts: bool(level_of(facts) == level)


def _set_test(condition: SetCondition) -> Test:
    values, include, exclude = SETS[condition.which], condition.include, condition.exclude
    if condition.which == "detections" and exclude:
        # As in the entity risk policy: it steps back only when nothing else speaks for the level.
        return lambda facts: not (facts.detections and facts.detections <= exclude)
    if not exclude:
        return lambda facts: not include.isdisjoint(values(facts))
    if not include:
        return lambda facts: exclude.isdisjoint(values(facts))

    def test(facts: RequestFacts) -> bool:
        found = values(facts)
        return not include.isdisjoint(found) and exclude.isdisjoint(found)

    return test


def _posture_test(condition: PostureCondition) -> Test:
    key, values = condition.key, condition.values
    if condition.is_excluded:
        return lambda facts: facts.posture.get(key) not in values
    return lambda facts: facts.posture.get(key) in values


def _age_test(condition: AgeCondition) -> Test:
    over_s = -1 if condition.over_s is None else condition.over_s
    within_s = float("inf") if condition.within_s is None else condition.within_s

    def test(facts: RequestFacts) -> bool:
        age_s = float("inf") if facts.auth_age_s is None else facts.auth_age_s
        return over_s < age_s <= within_s

    return test


# --- reading and rendering ----------------------------------------------------------------------


def parse(document: object, at: str) -> Conditions:
    """Read `when`. Raises Invalid with pointers, also for what can never match."""
    if document is None:
        return Conditions()
    found = reading.members(document, at, MEMBERS)
    return Conditions(
        actions=reading.strings(
            found.get("action", []), f"{at}/action", allowed=[kind.value for kind in RequestKind]
        ),
        levels=tuple(
            _parse_level(which, found[which], f"{at}/{which}") for which in LEVELS if which in found
        ),
        sets=tuple(
            _parse_set(which, found[which], f"{at}/{which}") for which in SETS if which in found
        ),
        posture=_parse_posture(found.get("posture"), f"{at}/posture"),
        age=_parse_age(found.get("auth_age"), f"{at}/auth_age"),
        expression=_parse_expression(found.get("expression"), f"{at}/expression"),
    )


def _parse_level(which: str, value: object, at: str) -> LevelCondition:
    if isinstance(value, str):
        name = reading.one_of(value, Level.__members__, at)
        return LevelCondition(which=which, level=Level[name], at_least=False)
    found = reading.members(value, at, ("at_least",))
    name = reading.one_of(found.get("at_least"), Level.__members__, f"{at}/at_least")
    return LevelCondition(which=which, level=Level[name], at_least=True)


def _parse_set(which: str, value: object, at: str) -> SetCondition:
    include, exclude = reading.sides(value, at)
    if not include and not exclude:
        reading.refuse(at, "include or exclude with at least one name")
    if which == "detections" and include and exclude:
        reading.refuse(at, "include or exclude, not both")
    if include and include <= exclude:
        reading.refuse(at, "it never matches: all that is included is excluded too")
    if which == "changes":
        known = [change.value for change in Change]
        for name in sorted(include | exclude):
            reading.one_of(name, known, at)
    return SetCondition(which=which, include=include, exclude=exclude)


def _parse_posture(value: object, at: str) -> tuple[PostureCondition, ...]:
    if value is None:
        return ()
    found = reading.members(value, at, ("include", "exclude"))
    conditions = [
        PostureCondition(
            key=reading.text(key, f"{at}/{side}"),
            values=reading.strings(
                [wanted] if isinstance(wanted, str) else wanted, f"{at}/{side}/{key}"
            ),
            is_excluded=side == "exclude",
        )
        for side in ("include", "exclude")
        for key, wanted in _object(found.get(side, {}), f"{at}/{side}").items()
    ]
    if not conditions or any(not each.values for each in conditions):
        reading.refuse(at, "include or exclude with at least one key and value")
    excluded = {each.key: each.values for each in conditions if each.is_excluded}
    for each in conditions:
        if not each.is_excluded and each.values <= excluded.get(each.key, frozenset()):
            reading.refuse(at, "it never matches: all that is included is excluded too")
    return tuple(conditions)


def _object(value: object, at: str) -> dict[str, object]:
    if not isinstance(value, dict) or len(value) > POSTURE_KEYS_MAX:
        reading.refuse(at, f"an object with at most {POSTURE_KEYS_MAX} keys")
    return value


def _parse_age(value: object, at: str) -> AgeCondition | None:
    if value is None:
        return None
    found = reading.members(value, at, ("over_s", "within_s"))
    given = {
        name: reading.number(found[name], f"{at}/{name}", least=0, most=AGE_S_MAX) for name in found
    }
    if not given:
        reading.refuse(at, "over_s, within_s, or both")
    condition = AgeCondition(**given)
    if None not in (condition.over_s, condition.within_s) and given["over_s"] >= given["within_s"]:
        reading.refuse(at, "it never matches: over_s is less than within_s")
    return condition


def _parse_expression(value: object, at: str) -> Expression | None:
    if value is None:
        return None
    if not isinstance(value, str):
        reading.refuse(at, "a CEL expression")
    try:
        return check(value)
    except ExpressionError as error:
        reading.refuse(at, f"a CEL expression that gives a bool: {error}")


def render(conditions: Conditions) -> dict[str, object]:
    """Render `when` as `parse` reads it. Raises nothing."""
    rendered: dict[str, object] = {}
    if conditions.actions:
        rendered["action"] = sorted(conditions.actions)
    for level in conditions.levels:
        name = level.level.name
        rendered[level.which] = {"at_least": name} if level.at_least else name
    for each in conditions.sets:
        rendered[each.which] = _render_sides(each.include, each.exclude)
    if conditions.posture:
        rendered["posture"] = {
            side: kept
            for side, is_excluded in (("include", False), ("exclude", True))
            if (kept := _render_posture(conditions.posture, is_excluded=is_excluded))
        }
    if conditions.age is not None:
        given = (("over_s", conditions.age.over_s), ("within_s", conditions.age.within_s))
        rendered["auth_age"] = {name: value for name, value in given if value is not None}
    if conditions.expression is not None:
        rendered["expression"] = conditions.expression.source
    return rendered


def _render_sides(include: Iterable[str], exclude: Iterable[str]) -> dict[str, list[str]]:
    both = (("include", sorted(include)), ("exclude", sorted(exclude)))
    return {side: names for side, names in both if names}


def _render_posture(
    conditions: Iterable[PostureCondition], *, is_excluded: bool
) -> dict[str, list[str]]:
    return {each.key: sorted(each.values) for each in conditions if each.is_excluded is is_excluded}
