"""How much the pipeline takes at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.pace import SIGNALS_BUSY_MAX, SIGNALS_MAX, SIGNALS_MIN, TURN_S, Pace


def _learned(fixed_s: float, each_s: float, batches: int = 40) -> int:
    """Return what a pace comes to where a batch takes this long, and so much more per signal."""
    pace = Pace()
    for _ in range(batches):
        signals = pace.size(is_busy=True)
        pace.note(signals, fixed_s + each_s * signals)
    return pace.size(is_busy=True)


def test_alone_the_pipeline_takes_much() -> None:
    assert Pace().size(is_busy=False) == SIGNALS_MAX


def test_while_others_wait_a_batch_takes_about_a_turn() -> None:
    signals = _learned(0.001, 0.0001)
    assert 0.001 + 0.0001 * signals == pytest.approx(TURN_S, rel=0.2)


def test_where_all_is_fast_it_takes_more_but_not_any_number() -> None:
    assert _learned(0.0, 0.000_001) == SIGNALS_BUSY_MAX


def test_where_all_is_slow_it_goes_on_with_few() -> None:
    assert _learned(0.5, 0.01) == SIGNALS_MIN


def test_a_small_batch_says_nothing_about_large_ones() -> None:
    pace = Pace()
    pace.note(1, TURN_S * 100)
    assert pace.size(is_busy=True) == SIGNALS_MIN
    pace.note(SIGNALS_MIN, TURN_S / 4)
    pace.note(1, TURN_S * 100)
    assert pace.size(is_busy=True) > SIGNALS_MIN


@given(st.lists(st.tuples(st.integers(0, SIGNALS_MAX), st.floats(0, 60)), max_size=20))
def test_it_never_takes_none_and_never_too_many(batches: list[tuple[int, float]]) -> None:
    pace = Pace()
    for signals, took_s in batches:
        pace.note(signals, took_s)
        assert SIGNALS_MIN <= pace.size(is_busy=True) <= SIGNALS_BUSY_MAX
