"""Several verdicts become one."""

from __future__ import annotations

from risk.policy import PolicyMode
from risk.verdict import Decision, Scope, Verdict, strongest


def verdict(decision: Decision, scope: Scope, **more: object) -> Verdict:
    return Verdict(decision=decision, scope=scope, **more)  # type: ignore[arg-type]  # a test's shorthand


def test_a_step_up_asks_for_what_is_named_and_the_shortest_age() -> None:
    one = verdict(Decision.STEP_UP, Scope.SESSION, max_age=300)
    other = verdict(Decision.STEP_UP, Scope.APP, acr="phr", amr_any_of=("hwk",), max_age=0)
    made = strongest([other, one, verdict(Decision.ALLOW, Scope.USER)])
    assert (made.scope, made.acr, made.amr_any_of, made.max_age) == (
        Scope.SESSION,
        "phr",
        ("hwk",),
        0,
    )


def test_what_was_held_back_shows_only_where_it_is_stronger() -> None:
    held = verdict(
        Decision.ALLOW, Scope.SESSION, mode=PolicyMode.MONITOR, would_have=Decision.STEP_UP
    )
    assert strongest([held, held]).would_have is Decision.STEP_UP
    assert strongest([held, held]).mode is PolicyMode.MONITOR
    denied = strongest([held, verdict(Decision.DENY, Scope.USER)])
    assert (denied.would_have, denied.mode) == (None, PolicyMode.ENFORCE)
