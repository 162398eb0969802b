"""A proposed entity risk policy against recorded changes of levels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from risk.levels.model import LevelChange
from risk.model import Level
from risk.policies.entity_replay import EntityTally, enforced, held_by_guard, merge, report
from risk.policy import STANDARD_RULES, render_rule

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
STANDARD = enforced({"mode": "monitor", "rules": [render_rule(rule) for rule in STANDARD_RULES]})
LOW, MEDIUM, HIGH = Level.LOW, Level.MEDIUM, Level.HIGH


def change(before: Level, after: Level, *, user: str = "usr_rosa", days: int = 0) -> LevelChange:
    return LevelChange(
        tenant_id="default",
        history_id="lvl_1",
        entity_id=user,
        previous_level=before,
        level=after,
        at=NOON + timedelta(days=days),
        reasons=(),
        cause_ids=(),
        trace_id="",
    )


def told(*changes: LevelChange, **about: Any) -> dict[str, Any]:
    tally = EntityTally()
    for each in changes:
        tally.add(each, STANDARD, **({"detections": (), "groups": ()} | about))
    return report(tally, held=0, changes_max=100)


def test_a_rise_is_answered_and_a_fall_only_with_what_is_new() -> None:
    found = told(change(LOW, HIGH), change(HIGH, MEDIUM), change(MEDIUM, LOW), change(LOW, HIGH))
    assert {name: found[name] for name in ("changes", "logouts", "prompts", "alerts", "users")} == {
        "changes": 4,
        "logouts": 2,
        "prompts": 1,
        "alerts": 2,
        "users": 1,
    }
    assert found["top_reasons"] == [
        {"reason": "entity-risk/high-contain", "changes": 2},
        {"reason": "entity-risk/medium-step-up", "changes": 1},
    ]


def test_break_glass_users_are_only_told_of() -> None:
    found = told(change(LOW, HIGH), is_exempt=True)
    assert (found["logouts"], found["quarantines"], found["alerts"]) == (0, 0, 1)


def test_rules_see_findings_and_groups() -> None:
    rules = [
        {"name": "not-vips", "priority": 1, "groups": {"include": ["vip"]}, "actions": ["NOTIFY"]},
        {
            "name": "spray",
            "priority": 2,
            "detections": {"include": ["brute_force_attack"]},
            "actions": ["UNIVERSAL_LOGOUT"],
        },
    ]
    policy, tally, spray = enforced({"rules": rules}), EntityTally(), {"brute_force_attack"}
    tally.add(change(LOW, MEDIUM), policy, detections=spray, groups={"vip"})
    tally.add(change(LOW, MEDIUM), policy, detections=spray, groups=())
    tally.add(change(LOW, MEDIUM), policy, detections=(), groups=())
    assert tally.reasons == {"not-vips": 1, "spray": 1}


def test_shares_are_merged_by_day() -> None:
    one, other = EntityTally(read=3), EntityTally(read=3)
    one.add(change(LOW, HIGH), STANDARD, detections=(), groups=())
    other.add(change(LOW, HIGH, user="usr_tim", days=1), STANDARD, detections=(), groups=())
    other.add(change(LOW, MEDIUM, user="usr_ida"), STANDARD, detections=(), groups=())
    merged = merge([one, other])
    assert [(day.changes, len(day.users)) for _, day in sorted(merged.days.items())] == [
        (2, 2),
        (1, 1),
    ]
    assert (merged.read, len(merged.contained)) == (3, 2)
    assert report(merged, held=0, changes_max=3)["is_cut"] is True


def test_the_guard_holds_what_comes_at_once() -> None:
    at_once = [NOON + timedelta(seconds=second) for second in range(5)]
    later = [NOON + timedelta(hours=1)]
    window = timedelta(minutes=10)
    assert held_by_guard(at_once + later, limit=3, window=window) == 2
    assert held_by_guard(later, limit=3, window=window) == 0
