"""What a proposed entity risk policy would have ordered when users' levels changed. Pure.

    recorded changes of levels ─▶ EntityTally.add, a share of the users per process ─▶ report

The policy counts as if it were enforced. A rise is answered with all that its rule orders; what
stays or falls, only with what was not ordered before. Groups are those of today: there is no
record of former ones.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from risk.levels.model import LevelChange
from risk.policy import Action, Policy, PolicyFacts, PolicyMode, decide, parse_policy

REASONS_MAX: Final = 20
#: what takes something away from a user
_TAKES_AWAY: Final = frozenset({Action.QUARANTINE.value, Action.UNIVERSAL_LOGOUT.value})


class EntityJob(msgspec.Struct, frozen=True, kw_only=True):
    """A share of a replay of an entity risk policy.

    document: the policy. share: this one of `shares`, by user. exempt: users that are only told of.
    """

    database_url: str
    tenant_id: str
    document: dict[str, Any]
    since: datetime
    until: datetime
    share: int
    shares: int
    changes_max: int
    exempt: list[str] = []


class EntityDay(msgspec.Struct, kw_only=True):
    """One day of it, UTC. users: ids of those for whom anything but a log line was ordered."""

    changes: int = 0
    logouts: int = 0
    quarantines: int = 0
    prompts: int = 0
    alerts: int = 0
    users: set[str] = msgspec.field(default_factory=set)


class EntityTally(msgspec.Struct, kw_only=True):
    """What was counted. reasons: rule -> changes; contained: when somebody newly was."""

    days: dict[str, EntityDay] = msgspec.field(default_factory=dict)
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    contained: list[datetime] = msgspec.field(default_factory=list)
    ordered: dict[str, frozenset[str]] = msgspec.field(default_factory=dict)
    read: int = 0

    def add(
        self,
        change: LevelChange,
        policy: Policy,
        *,
        detections: Collection[str],
        groups: Collection[str],
        is_exempt: bool = False,
    ) -> None:
        """Ask the policy about one change and count what it orders. Raises nothing.

        detections: names of the findings behind the level. groups: of the user.
        """
        facts = PolicyFacts(
            level=change.level, detections=frozenset(detections), groups=frozenset(groups)
        )
        decision = decide(policy, facts)
        wanted = decision.actions
        if is_exempt and wanted & _TAKES_AWAY:
            wanted = (wanted - _TAKES_AWAY) | {Action.NOTIFY.value}
        before = self.ordered.get(change.entity_id, frozenset())
        new = wanted if change.level > change.previous_level else wanted - before
        self.ordered[change.entity_id] = wanted
        day = self.days.setdefault(change.at.date().isoformat(), EntityDay())
        day.changes += 1
        day.logouts += Action.UNIVERSAL_LOGOUT in new
        day.quarantines += Action.QUARANTINE in new
        day.prompts += Action.REQUIRE_STEP_UP_NEXT in new
        day.alerts += Action.NOTIFY in new
        if new - {Action.LOG}:
            day.users.add(change.entity_id)
            self.reasons[decision.rule] = self.reasons.get(decision.rule, 0) + 1
        if new & _TAKES_AWAY and not before & _TAKES_AWAY:
            self.contained.append(change.at)


def enforced(document: object) -> Policy:
    """Return the policy of a job, as if it were enforced. Raises Invalid."""
    policy = parse_policy(document)
    return Policy(mode=PolicyMode.ENFORCE, rules=policy.rules)


def merge(tallies: Sequence[EntityTally]) -> EntityTally:
    """Return one tally of several that share no user. Raises nothing."""
    merged = EntityTally()
    reasons: Counter[str] = Counter()
    for tally in tallies:
        reasons.update(tally.reasons)
        merged.contained += tally.contained
        merged.read = max(merged.read, tally.read)
        for date, day in tally.days.items():
            into = merged.days.setdefault(date, EntityDay())
            into.changes += day.changes
            into.logouts += day.logouts
            into.quarantines += day.quarantines
            into.prompts += day.prompts
            into.alerts += day.alerts
            into.users |= day.users
    merged.reasons = dict(reasons)
    return merged


def held_by_guard(contained: Sequence[datetime], *, limit: int, window: timedelta) -> int:
    """Return how many of these would have waited for a person, because too many came at once.

    limit: how many are let pass in any window. Raises nothing.
    """
    held = 0
    admitted: deque[datetime] = deque()
    for at in sorted(contained):
        while admitted and at - admitted[0] > window:
            admitted.popleft()
        if len(admitted) < limit:
            admitted.append(at)
        else:
            held += 1
    return held


def report(tally: EntityTally, *, held: int, changes_max: int) -> dict[str, Any]:
    """Render a tally for people. held: of those contained. Raises nothing."""
    days: list[dict[str, Any]] = [
        {
            "day": date,
            "changes": day.changes,
            "logouts": day.logouts,
            "quarantines": day.quarantines,
            "prompts": day.prompts,
            "alerts": day.alerts,
            "users": len(day.users),
        }
        for date, day in sorted(tally.days.items())
    ]
    reasons = sorted(tally.reasons.items(), key=lambda each: (-each[1], each[0]))
    counted = ("changes", "logouts", "quarantines", "prompts", "alerts")
    return {
        **{name: sum(day[name] for day in days) for name in counted},
        "users": len({user_id for day in tally.days.values() for user_id in day.users}),
        "held_by_guard": held,
        "days": days,
        "top_reasons": [
            {"reason": f"entity-risk/{rule}", "changes": count}
            for rule, count in reasons[:REASONS_MAX]
        ],
        "is_cut": tally.read >= changes_max,
    }
