"""Back-off: every input has an answer, and every answer is inside its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.backoff import Backoff

DAY_S = 86_400.0

rules = st.builds(
    Backoff,
    first_s=st.floats(0.001, 3_600),
    ceiling_s=st.floats(0.001, DAY_S),
    attempts_max=st.integers(1, 10_000),
    factor=st.floats(1.0, 10.0),
)
attempts_made = st.integers(1, 1_000_000)
jitters = st.floats(0.0, 1.0, exclude_max=True)
#: also what a broken peer may ask for
asked_waits = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.requirement("PUSH-44")
@given(rules, attempts_made, jitters, asked_waits)
def test_every_wait_is_finite_positive_and_at_most_a_day(
    rule: Backoff, attempts: int, jitter: float, asked: float | None
) -> None:
    delay = rule.delay_s(attempts, jitter=jitter, retry_after_s=asked)
    if attempts >= rule.attempts_max:
        assert delay is None
    else:
        assert delay is not None
        assert 0 < delay <= DAY_S


@given(rules, attempts_made, jitters)
def test_without_a_wish_of_the_other_side_the_ceiling_holds(
    rule: Backoff, attempts: int, jitter: float
) -> None:
    delay = rule.delay_s(attempts, jitter=jitter)
    assert delay is None or rule.ceiling_s * 0.5 >= delay or delay <= rule.ceiling_s


@pytest.mark.requirement("PUSH-44")
@given(rules, attempts_made, jitters, st.floats(0, DAY_S))
def test_what_the_other_side_asks_for_is_a_lower_bound(
    rule: Backoff, attempts: int, jitter: float, asked: float
) -> None:
    delay = rule.delay_s(attempts, jitter=jitter, retry_after_s=asked)
    assert delay is None or delay >= asked


@given(rules, attempts_made)
def test_jitter_never_takes_more_than_half(rule: Backoff, attempts: int) -> None:
    least, most = (rule.delay_s(attempts, jitter=jitter) for jitter in (0.0, 0.999))
    if least is not None and most is not None:
        assert least <= most <= 2 * least


@given(rules, st.integers(1, 1_000), jitters)
def test_waits_do_not_shrink_from_attempt_to_attempt(
    rule: Backoff, attempts: int, jitter: float
) -> None:
    earlier = rule.delay_s(attempts, jitter=jitter)
    later = rule.delay_s(attempts + 1, jitter=jitter)
    assert earlier is None or later is None or later >= earlier


def test_the_budget_counts_the_first_attempt() -> None:
    rule = Backoff(first_s=1, ceiling_s=60, attempts_max=3)
    assert [rule.delay_s(made, jitter=0.5) is None for made in (1, 2, 3, 4)] == [
        False,
        False,
        True,
        True,
    ]


def test_a_wish_beyond_a_day_is_cut_to_a_day() -> None:
    rule = Backoff(first_s=1, ceiling_s=60, attempts_max=3)
    assert rule.delay_s(1, jitter=0.0, retry_after_s=1e9) == DAY_S
