"""Whoever does nothing wrong is hardly ever asked: a small trace, counted."""

from __future__ import annotations

from benchmarks.clean_trace import TARGET_PER_200, report, run


def test_row_22_a_clean_trace_has_at_most_one_false_step_up_per_200_user_days() -> None:
    result = run(seed=7, users=100, days=120)
    assert result.user_days > 8_000
    assert result.per_200 <= TARGET_PER_200
    assert "per 200 user-days" in report(result)
    # It is not quiet because nothing is looked at.
    assert result.judged > result.user_days
    assert result.step_ups > 0
